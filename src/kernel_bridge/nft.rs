//! NAT and isolation by `nft`, in a table of its own for each bridge: nobody else's rules are touched.

use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::request::BridgeName;
use crate::config::Cidr;

/// Where systems have the programs of root.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];

/// The program.
#[derive(Clone, Debug)]
pub(super) struct Nft(PathBuf);

impl Nft {
    /// Finds the system's; another one only where that has none.
    pub(super) fn find() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = FOLDERS.map(PathBuf::from).into_iter().chain(env::split_paths(&path));
        let mut programs = folders.map(|folder| folder.join("nft"));
        programs.find(|path| path.is_absolute() && path.is_file()).map(Self)
    }

    /// Is there a table for the bridge?
    pub(super) fn has_table(&self, bridge: &BridgeName) -> Result<bool> {
        let tables = self.run(&["list", "tables"], "")?;
        let wanted = format!("table inet {}", table(bridge));
        Ok(tables.lines().any(|line| line == wanted))
    }

    /// Makes a table that gives what comes from inside the address of what it leaves by.
    pub(super) fn translate(&self, bridge: &BridgeName, inside: &[Cidr]) -> Result<()> {
        self.run(&["-f", "-"], &translation(bridge, inside)).map(drop)
    }

    /// Makes a table that lets nothing pass between the bridge and other links.
    pub(super) fn isolate(&self, bridge: &BridgeName) -> Result<()> {
        self.run(&["-f", "-"], &isolation(bridge)).map(drop)
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

fn translation(bridge: &BridgeName, inside: &[Cidr]) -> String {
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

/// Frames from port to port pass here as well where br_netfilter has them filtered.
fn isolation(bridge: &BridgeName) -> String {
    format!(
        "table inet {} {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname \"{bridge}\" oifname != \"{bridge}\" drop
    iifname != \"{bridge}\" oifname \"{bridge}\" drop
  }}
}}
",
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
    fn golden_isolation() {
        assert_eq!(
            isolation(&"br0".parse().unwrap()),
            "table inet qhub_br0 {
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname \"br0\" oifname != \"br0\" drop
    iifname != \"br0\" oifname \"br0\" drop
  }
}
"
        );
    }

    #[test]
    fn golden_rules() {
        let inside = ["10.55.0.1/24", "fd55::1/64"].map(|cidr| cidr.parse().unwrap());
        assert_eq!(
            translation(&"br-x.1".parse().unwrap(), &inside),
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
