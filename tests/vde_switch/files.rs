//! Files of commands.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use super::switch::{PROMPT, Switch, refusal};
use crate::common::hub::{folder, utf8};
use crate::common::wait::pause;

#[test]
fn a_switch_begins_with_the_commands_of_its_file() {
    let home = folder();
    let (rc, more) = (home.path().join("rc"), home.path().join("more"));
    fs::write(
        &rc,
        format!("# ports\nport/create 5\nbogus\nload {}\ndebug/add\nport/create 5\n", more.display()),
    )
    .expect("it is ours");
    fs::write(&more, "port/create 6\nport/sethub 1\n").expect("it is ours");
    let mgmt = home.path().join("m");
    let rc = utf8(&rc).to_owned();
    let switch = Switch::start_in(home, &["-f", &rc, "-M", utf8(&mgmt)], Stdio::piped());
    let mut console = switch.console();
    let ports = console.ask("port/allprint");
    assert!(ports.contains("Port 0005 ") && ports.contains("Port 0006 "), "{ports}");
    assert!(console.ask("port/showinfo").contains("HUB=true"));
    let log = switch.stop();
    for warning in
        ["rc:3: bogus: Function not impl", "rc:5: debug/add: Function", "rc:6: port/create 5: File exists"]
    {
        assert!(log.contains(warning), "{warning}: {log}");
    }
    assert_eq!(log.matches("WARN").count(), 3, "{log}");
}

/// Those who were to be apart would be together, and nobody would look at the log.
#[test]
fn a_file_that_asks_for_what_there_is_not_ends_the_start() {
    let home = folder();
    let [sock, rc, more] = ["c", "rc", "more"].map(|name| home.path().join(name));
    fs::write(&rc, format!("port/create 5\nload {}\n", more.display())).expect("it is ours");
    for (line, words) in [
        ("vlan/create 5", "there are no VLANs in qhub yet, all ports are one segment; leave it out"),
        ("port/setvlan 1 5", "there are no VLANs"),
        ("fstp/setfstp 1", "there is no spanning tree in qhub; leave it out"),
        ("plugin/add x.so", "there are no plugins in qhub; leave it out"),
    ] {
        fs::write(&more, format!("# first\n{line}\n")).expect("it is ours");
        let (status, error) = refusal(home.path(), &["-s", utf8(&sock), "-f", utf8(&rc)]);
        assert_eq!(status.code(), Some(1));
        assert!(error.contains(&format!("qhub: {}:2: {line}: {words}", more.display())), "{error}");
        assert!(!sock.exists());
    }
    fs::write(&rc, "port/create 5\n".repeat(4097)).expect("it is ours");
    let (_, error) = refusal(home.path(), &["-s", utf8(&sock), "-f", utf8(&rc)]);
    assert!(error.contains("rc has more than 4096 commands; leave some out"), "{error}");
}

#[test]
fn the_file_at_home_is_used_when_nothing_else_is_said() {
    let home = folder();
    fs::create_dir(home.path().join(".vde2")).expect("it is ours");
    fs::write(home.path().join(".vde2/vde_switch.rc"), "port/create 9\n").expect("it is ours");
    let mgmt = home.path().join("m");
    let switch = Switch::start_in(home, &["-M", utf8(&mgmt)], Stdio::null());
    assert!(switch.console().ask("port/allprint").contains("Port 0009 "));
    switch.stop();
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let home = folder();
    let (sock, none) = (home.path().join("c"), home.path().join("none"));
    let (status, error) = refusal(home.path(), &["-s", utf8(&sock), "-rcfile", utf8(&none)]);
    assert_eq!(status.code(), Some(1));
    assert!(
        error.contains("none: No such file or directory; see that it is there, or leave out --rcfile"),
        "{error}"
    );
    assert!(!sock.exists());
}

#[test]
fn shutdown_at_the_beginning_is_the_end() {
    let home = folder();
    let rc = home.path().join("rc");
    fs::write(&rc, "shutdown\nport/create 1\n").expect("it is ours");
    let sock = home.path().join("c");
    let mut process =
        super::switch::launch(home.path(), &["-s", utf8(&sock), "-f", utf8(&rc)], Stdio::piped());
    assert!(process.exit(crate::common::wait::LIMIT).success());
    assert!(!sock.exists());
}

#[test]
fn a_session_loads_files() {
    let switch = Switch::start(&[]);
    let (one, two) = (switch.path("one"), switch.path("two"));
    fs::write(
        &one,
        format!("port/create 5\nsecret text\nload {}\nport/create 5\nds/showinfo\n", two.display()),
    )
    .expect("it is ours");
    fs::write(&two, "port/create 6\nport/create\n").expect("it is ours");
    let mut console = switch.console();
    let (first, second) = (utf8(&one), utf8(&two));
    assert_eq!(
        console.ask(&format!("load {first}")),
        format!(
            "0000 DATA END WITH '.'\nvde[{first}:1]: port/create 5\n 1000 Success\nvde[{first}:2]:\n \
             1038 Function not implemented\nvde[{first}:3]: load {second}\n 1000 Success\nvde[{second}:1]: port/create 6\n \
             1000 Success\nvde[{second}:2]:\n 1022 Invalid argument\nvde[{first}:4]: port/create 5\n 1017 File exists\n\
             vde[{first}:5]: ds/showinfo\n 0000 DATA END WITH '.'\n ctl dir {}\n std mode 0600\n .\n 1000 Success\n.\n1000 Success\n",
            utf8(&switch.path("c"))
        )
    );
    assert_eq!(console.ask("load"), "1022 Invalid argument\n");
    assert_eq!(console.ask("load /nonexistent"), "1002 No such file or directory\n");
    assert_eq!(console.ask("load /dev/zero"), "1022 Invalid argument\n");
    assert_eq!(console.ask("load /"), "1022 Invalid argument\n");

    fs::write(&two, format!("load {second}\nload {second}\nport/create 7\n")).expect("it is ours");
    let text = console.ask(&format!("load {second}"));
    assert!(text.contains("1040 ") && text.ends_with("\n.\n1000 Success\n"), "{}", &text[text.len() - 200..]);

    fs::write(&two, format!("load {second}\n{}", "load two\nshowinfo\n".repeat(100))).expect("it is ours");
    let text = console.ask(&format!("load {second}"));
    assert!(text.ends_with("\n.\n1007 Argument list too long\n"), "{}", &text[text.len() - 200..]);

    console.ask("debug/add port");
    let helps = "help\n".repeat(500);
    fs::write(&two, format!("port/create 8\n{helps}")).expect("it is ours");
    console.send(&format!("load {second}\n"));
    // The switch has to wait for who reads, and goes on with its other work.
    pause(Duration::from_millis(150));
    let text = console.read_to("port/+ 08\n");
    let (answer, events) = text.split_once("\n.\n1000 Success\n").expect("a whole answer");
    assert!(!answer.contains("\n3021"), "an event is no part of it");
    assert_eq!(events, format!("{PROMPT}3021 port/+ 08\n"));

    fs::write(&two, "shutdown\n").expect("it is ours");
    console.send(&format!("load {second}\n"));
    assert!(console.read_to_end().ends_with("shutdown\n 1000 Success\n"));
    switch.ended();
}
