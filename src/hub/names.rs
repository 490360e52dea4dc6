//! Names of ports: unique as long as the port lives, or its dialler does.

use std::collections::BTreeSet;

/// The names in use.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// `stem` and the first free number: `unix1`, `unix2`, `l2tpv3-1`; a number that is free again is
    /// used again.
    pub(super) fn number(&mut self, stem: &str) -> String {
        let numbered = (1..).map(|number| with_number(stem, number));
        let free = numbered.into_iter().find(|name| !self.0.contains(name)).unwrap_or_default();
        self.0.insert(free.clone());
        free
    }

    /// `name` itself, or with a number when it is taken.
    pub(super) fn take(&mut self, name: &str) -> String {
        if self.0.insert(name.to_owned()) { name.to_owned() } else { self.number(name) }
    }

    /// `stem` with this number, and one behind it when it is taken.
    pub(super) fn numbered(&mut self, stem: &str, number: u16) -> String {
        self.take(&with_number(stem, number.into()))
    }

    /// Gives a name back.
    pub(super) fn release(&mut self, name: &str) {
        self.0.remove(name);
    }
}

fn with_number(stem: &str, number: u32) -> String {
    let gap = if stem.ends_with(|char: char| char.is_ascii_digit()) { "-" } else { "" };
    format!("{stem}{gap}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fill_the_first_gap_and_are_never_given_twice() {
        let mut names = Names::default();
        assert_eq!(
            (names.number("unix"), names.number("unix"), names.number("tcp")),
            ("unix1".into(), "unix2".into(), "tcp1".into())
        );
        assert_eq!(names.take("unix3"), "unix3");
        assert_eq!(names.number("unix"), "unix4");
        assert_eq!(names.take("unix3"), "unix3-1");
        assert_eq!((names.numbered("vde", 7), names.numbered("vde", 7)), ("vde7".into(), "vde7-1".into()));
        names.release("unix2");
        names.release("other");
        assert_eq!((names.number("unix"), names.number("unix")), ("unix2".into(), "unix5".into()));
    }
}
