//! Names of users and groups, from the files of this host: the loop must not wait for a directory service.
//! Those that are not in there go by their numbers.

use std::fs;

/// What numbers stand for.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(String, u32)>);

impl Names {
    /// The users.
    pub(super) fn of_users() -> Self {
        Self::read("/etc/passwd")
    }

    /// The groups.
    pub(super) fn of_groups() -> Self {
        Self::read("/etc/group")
    }

    fn read(path: &str) -> Self {
        Self::parse(&fs::read_to_string(path).unwrap_or_default())
    }

    /// Both files have the name in the first field and the number in the third.
    fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            Some((name.to_owned(), fields.nth(1)?.parse().ok()?))
        };
        Self(text.lines().filter_map(entry).collect())
    }

    /// The number of a name, or of a number.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        let found = self.0.iter().find(|(own, _)| own == name);
        found.map(|&(_, number)| number).or_else(|| name.parse().ok())
    }

    /// The name of a number, or the number itself.
    pub(super) fn show(&self, number: u32) -> String {
        let found = self.0.iter().find(|&&(_, own)| own == number);
        found.map_or_else(|| number.to_string(), |(name, _)| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_numbers() {
        let names = Names::parse("root:x:0:0:root:/root:/bin/sh\n\n:x:5:\nbad:x:y:\nann:x:1000:7\n12:x:13:");
        assert_eq!((names.find("root"), names.find("ann"), names.find("bad")), (Some(0), Some(1000), None));
        assert_eq!((names.find("12"), names.find("77"), names.find("-1")), (Some(13), Some(77), None));
        assert_eq!((names.show(1000), names.show(5)), ("ann".to_owned(), "5".to_owned()));
    }
}
