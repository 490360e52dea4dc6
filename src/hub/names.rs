//! Names of ports.

use std::collections::{BTreeSet, HashMap};

/// The names in use: `unix1`, `unix2`; a number that is free again is used again.
#[derive(Debug, Default)]
pub(super) struct Names {
    taken: HashMap<String, BTreeSet<usize>>,
}

impl Names {
    /// The first free name of `stem`.
    pub(super) fn take(&mut self, stem: &str) -> String {
        // The number has to be told from a stem that ends in digits.
        let stem = if stem.ends_with(|char: char| char.is_ascii_digit()) {
            format!("{stem}-")
        } else {
            stem.to_owned()
        };
        let numbers = self.taken.entry(stem.clone()).or_default();
        let number = (1..)
            .zip(&*numbers)
            .find(|(free, taken)| free != *taken)
            .map_or(numbers.len() + 1, |(free, _)| free);
        numbers.insert(number);
        format!("{stem}{number}")
    }

    /// Gives a name back.
    pub(super) fn release(&mut self, name: &str) {
        let stem = name.trim_end_matches(|char: char| char.is_ascii_digit());
        if let (Some(numbers), Ok(number)) = (self.taken.get_mut(stem), name[stem.len()..].parse()) {
            numbers.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fill_the_first_gap() {
        let mut names = Names::default();
        assert_eq!(
            (names.take("unix"), names.take("unix"), names.take("tcp")),
            ("unix1".into(), "unix2".into(), "tcp1".into())
        );
        assert_eq!(names.take("unix"), "unix3");
        names.release("unix2");
        names.release("unix9");
        names.release("other");
        assert_eq!((names.take("unix"), names.take("unix")), ("unix2".into(), "unix4".into()));
        assert_eq!(names.take("web2"), "web2-1");
        names.release("web2-1");
        assert_eq!(names.take("web2"), "web2-1");
    }
}
