//! What the console can do, as `help` lists it.

use std::fmt::Write;

/// A line of the list.
struct Entry {
    path: &'static str,
    /// Its arguments; `============` for a group of commands.
    syntax: &'static str,
    help: &'static str,
}

const fn entry(path: &'static str, syntax: &'static str, help: &'static str) -> Entry {
    Entry { path, syntax, help }
}

const GROUP: &str = "============";

const MENU: [Entry; 34] = [
    entry("ds", GROUP, "DATA SOCKET MENU"),
    entry("ds/showinfo", "", "show ds info"),
    entry("help", "[arg]", "Help (limited to arg when specified)"),
    entry("logout", "", "logout from this mgmt terminal"),
    entry("shutdown", "", "shutdown of the switch"),
    entry("showinfo", "", "show switch version and info"),
    entry("load", "path", "load a configuration script"),
    entry("debug", GROUP, "DEBUG MENU"),
    entry("debug/list", "", "list debug categories"),
    entry("debug/add", "dbgpath", "enable debug info for a given category"),
    entry("debug/del", "dbgpath", "disable debug info for a given category"),
    entry("hash", GROUP, "HASH TABLE MENU"),
    entry("hash/showinfo", "", "show hash info"),
    entry("hash/setsize", "N", "make room for N stations"),
    entry("hash/setexpire", "N", "forget a station N seconds after its last frame"),
    entry("hash/print", "", "print the hash table"),
    entry("hash/find", "MAC [VLAN]", "MAC lookup"),
    entry("port", GROUP, "PORT STATUS MENU"),
    entry("port/showinfo", "", "show port info"),
    entry("port/setnumports", "N", "set the number of ports"),
    entry("port/sethub", "0/1", "1=HUB 0=switch"),
    entry(
        "port/createauto",
        "",
        "create a port with an automatically allocated id (inactive|notallocatable)",
    ),
    entry("port/create", "N", "create the port N (inactive|notallocatable)"),
    entry("port/remove", "N", "remove the port N"),
    entry("port/allocatable", "N 0/1", "Is the port allocatable as unnamed? 1=Y 0=N"),
    entry("port/setuser", "N user", "access control: set user"),
    entry("port/setgroup", "N group", "access control: set group"),
    entry("port/epclose", "N ID", "remove the endpoint port N/id ID"),
    entry("port/resetcounter", "[N]", "reset the port (N) counters"),
    entry("port/print", "[N]", "print the port/endpoint table"),
    entry("port/allprint", "[N]", "print the port/endpoint table (including inactive port)"),
    entry("vlan", GROUP, "VLAN MANAGEMENT MENU"),
    entry("vlan/print", "[N]", "print the list of defined vlan"),
    entry("vlan/allprint", "[N]", "print the list of defined vlan (including inactive port)"),
];

/// The list, of what begins with `prefix`.
pub(super) fn help(prefix: &str) -> String {
    let mut text = format!(
        "{:<18} {:<15} {}\n{:<18} {:<15} {}\n",
        "COMMAND PATH", "SYNTAX", "HELP", "------------", "--------------", "------------"
    );
    for Entry { path, syntax, help } in MENU.iter().filter(|entry| entry.path.starts_with(prefix)) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{path:<18} {syntax:<15} {help}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::*;

    #[test]
    fn it_is_laid_out_as_the_original() {
        assert_eq!(
            help("hash/f"),
            "COMMAND PATH       SYNTAX          HELP\n\
             ------------       --------------  ------------\n\
             hash/find          MAC [VLAN]      MAC lookup\n"
        );
        let all = help("");
        assert!(all.contains("\nds                 ============    DATA SOCKET MENU\nds/showinfo                        show ds info\n"));
        assert_eq!(all.lines().count(), MENU.len() + 2);
        assert_eq!(help("bogus").lines().count(), 2);
    }

    #[test]
    fn what_is_listed_exists() {
        for Entry { path, syntax, .. } in &MENU {
            let parsed = Command::parse(path);
            let is_command = *syntax != GROUP;
            assert_eq!(parsed != Err(nix::errno::Errno::ENOSYS), is_command, "{path}: {parsed:?}");
        }
    }
}
