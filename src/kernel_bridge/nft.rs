//! NAT by `nft`, in a table of its own for each bridge: nobody else's rules are touched.

use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use super::request::BridgeName;
use crate::config::Cidr;

/// The program.
#[derive(Clone, Debug)]
pub(super) struct Nft(PathBuf);

impl Nft {
    /// Finds it, also where only root's PATH leads.
    pub(super) fn find() -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
        let found =
            folders.map(|folder| folder.join("nft")).find(|path| path.is_absolute() && path.is_file());
        found.map(Self).ok_or_else(|| {
            anyhow!("NAT needs the program nft, which is not installed; install the package nftables, or give --no-nat")
        })
    }

    /// Is there a table for the bridge?
    pub(super) fn has_table(&self, bridge: &BridgeName) -> Result<bool> {
        let tables = self.run(&["list", "tables"], "")?;
        let wanted = format!("table inet {}", table(bridge));
        Ok(tables.lines().any(|line| line == wanted))
    }

    /// Makes the table.
    pub(super) fn add(&self, bridge: &BridgeName, inside: &[Cidr]) -> Result<()> {
        self.run(&["-f", "-"], &rules(bridge, inside)).map(drop)
    }

    /// Deletes the table, if there is one.
    pub(super) fn delete(&self, bridge: &BridgeName) -> Result<()> {
        let table = table(bridge);
        // In one transaction, where the first makes sure that the second can.
        self.run(&["-f", "-"], &format!("add table inet {table}\ndelete table inet {table}\n")).map(drop)
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let Self(program) = self;
        let start = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = start.with_context(|| format!("start {}", program.display()))?;
        let mut stdin = child.stdin.take().context("nft has no input")?;
        let written = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().with_context(|| format!("run {}", program.display()))?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("nft: {}", complaint.lines().next().unwrap_or("it failed without a word"));
        }
        // One that fails says why; one that does not has to have read it all.
        written.context("tell nft")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The table of a bridge, in the family `inet`.
pub(super) fn table(bridge: &BridgeName) -> String {
    format!("qhub_{bridge}")
}

/// What comes from inside, and leaves by anything but the bridge, gets the address of what it leaves by.
fn rules(bridge: &BridgeName, inside: &[Cidr]) -> String {
    let mut rules = String::new();
    for cidr in inside {
        let family = if cidr.ip().is_ipv4() { "ip" } else { "ip6" };
        // Writing to a string does not fail.
        let _ = writeln!(rules, "    {family} saddr {} oifname != \"{bridge}\" masquerade", cidr.network());
    }
    format!(
        "table inet {} {{\n  chain postrouting {{\n    type nat hook postrouting priority 100; policy accept;\n{rules}  }}\n}}\n",
        table(bridge)
    )
}

/// For a message that says what to type.
pub(super) fn delete_command(bridge: &BridgeName) -> String {
    format!("nft delete table inet {}", table(bridge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_rules() {
        let inside = ["10.55.0.1/24", "fd55::1/64"].map(|cidr| cidr.parse().unwrap());
        assert_eq!(
            rules(&"br-x.1".parse().unwrap(), &inside),
            "table inet qhub_br-x.1 {
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 10.55.0.0/24 oifname != \"br-x.1\" masquerade
    ip6 saddr fd55::/64 oifname != \"br-x.1\" masquerade
  }
}
"
        );
    }
}
