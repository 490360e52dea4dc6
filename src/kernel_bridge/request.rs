//! What is asked for.

use std::fmt;
use std::str::FromStr;

use nix::libc;
use serde::{Deserialize, Serialize};

use crate::config::Cidr;

/// The name of a bridge that qhub makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BridgeName(String);

/// A bridge that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub name: BridgeName,
    /// What it leads to.
    pub reach: Reach,
}

/// What the VMs on a bridge can reach besides each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This host, which has addresses there.
    Host(Vec<Cidr>),
    /// This host, and by its addresses whatever it can reach.
    Nat(Vec<Cidr>),
    /// The network of the interface with this name.
    Lan(String),
}

/// Whether the user knows that a session may be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Has to be asked.
    Wanted,
    /// Said so already.
    Given,
}

impl BridgeName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BridgeName {
    type Err = String;

    /// It becomes a part of file names, of names for nft, and of commands that users paste.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() >= libc::IFNAMSIZ {
            return Err(format!("a name has at most {} characters", libc::IFNAMSIZ - 1));
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // The kernel has settings under the last two.
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !text.chars().all(is_plain)
            || ["all", "default"].contains(&text)
        {
            return Err("a name has letters, digits, '-', '_' and '.', such as qhub0".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl Default for BridgeName {
    fn default() -> Self {
        Self("qhub0".to_owned())
    }
}

impl TryFrom<String> for BridgeName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<BridgeName> for String {
    fn from(name: BridgeName) -> Self {
        name.0
    }
}

impl fmt::Display for BridgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_two_ends() {
        for good in ["q", "qhub0", "br-lan.1_x", "fifteen-letters", "0"] {
            assert_eq!(good.parse::<BridgeName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "sixteen-letters1",
            "a/b",
            "a b",
            "a\tb",
            "..",
            ".",
            "-a",
            "_a",
            "a\"b",
            "a:b",
            "é",
            "all",
            "default",
        ] {
            assert!(bad.parse::<BridgeName>().is_err(), "{bad:?}");
        }
    }
}
