//! What is written on the command line, and what is answered.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use crate::common::hub::folder;

fn qhub(args: &[&str]) -> Output {
    // A wrong command line must not start anything, and what is started by mistake ends with the time-out.
    let runtime = folder();
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_qhub")]).args(args).env("XDG_RUNTIME_DIR", runtime.path());
    command.output().expect("coreutils has timeout")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn help_and_version_go_to_stdout() {
    let output = qhub(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("qhub {}\n", env!("CARGO_PKG_VERSION")));

    let wanted = [
        "--name",
        "--hub",
        "--no-tcp",
        "--max-ports",
        "--ageing",
        "--fdb-max",
        "--log",
        "--quiet",
        "--verbose",
        "unix:PATH",
        "tcp:[HOST:]PORT",
        "connect:unix:PATH",
        "connect:tcp:HOST:PORT",
        "vde:DIR",
        "connect:vde:DIR",
        "fd:N",
        "max-frame=",
        "pad=60",
        "queue=",
        "pause=",
        "any-user=on",
        "mode=",
    ];
    for args in [&["--help"][..], &["run", "--help"], &["help", "run"]] {
        let output = qhub(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
        let help = text(&output.stdout);
        for part in wanted {
            assert!(help.contains(part), "{args:?} does not tell of {part}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_refused_with_what_would_be_right() {
    let long = format!("unix:/{}", "n".repeat(107));
    for (args, hint) in [
        (&["nonsense"][..], "write unix:PATH, tcp:[HOST:]PORT"),
        (&["run", "nonsense"], "write unix:PATH, tcp:[HOST:]PORT"),
        (&["-v", "plug"], "'plug' is a command"),
        (&["tcp:70000"], "0 to 65535"),
        (&["tcp:::1:5555"], "[::1]:5555"),
        (&["connect:tcp:5555"], "HOST:PORT"),
        (&["connect:/run/vm.sock"], "connect:unix:PATH"),
        (&["unix:"], "needs a name"),
        (&[&long], "choose a shorter path"),
        (&["fd:1"], "0, 3, 4"),
        (&["fd:-1"], "0, 3, 4"),
        (&["tcp:0,queue=1"], "393216 to 67108864"),
        (&["tcp:0,max-frame=13"], "14 to 69632"),
        (&["tcp:0,max-frame=69633"], "14 to 69632"),
        (&["tcp:0,pad=64"], "pad=60"),
        (&["tcp:0,pause=2s"], "0ms to 1000ms"),
        (&["tcp:0,any-user=on"], "takes no 'any-user='"),
        (&["unix:/run/a,b"], "doubled (,,)"),
        (&["tcp:0,name=a", "tcp:0,name=a"], "two ports are named 'a'"),
        (&["--name", "../lab"], "is no name"),
        (&["--name", ""], "is no name"),
        (&["--max-ports", "0"], "1..=1024"),
        (&["--max-ports", "1025"], "1..=1024"),
        (&["--ageing", "0"], "1..=1000000"),
        (&["--fdb-max", "0"], "1..=65536"),
        (&["-q", "-v"], "cannot be used with"),
        (&["--colour"], "--colour"),
        (&["mac", "--name", "a/b"], "is no name"),
    ] {
        let output = qhub(args);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?} said {message}");
        assert!(message.contains(hint), "{args:?} said {message}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn addresses_are_stable_by_name_and_random_without() {
    let macs = |args: &[&str]| -> Vec<String> {
        let output = qhub(&[&["mac"], args].concat());
        assert_eq!(output.status.code(), Some(0));
        let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
        for line in &lines {
            let octets: Vec<u8> =
                line.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("hexadecimal")).collect();
            assert_eq!((octets.len(), line.len()), (6, 17), "{line}");
            assert_eq!(octets[0] & 3, 2, "{line} is no station's address of local meaning");
        }
        lines
    };
    let named = macs(&["web", "db"]);
    assert_eq!(macs(&["db", "web"]), [named[1].as_str(), named[0].as_str()]);
    let all = [named, macs(&["--name", "lab", "web", "db"]), macs(&[]), macs(&[])].concat();
    assert_eq!(all.len(), 6);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 6, "two are the same: {all:?}");
}
