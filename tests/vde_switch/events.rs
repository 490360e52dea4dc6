//! What `debug/*` tells.

use super::switch::{Console, PROMPT, Switch};

const SUCCESS: &str = "1000 Success\n";

fn listening(switch: &Switch, what: &str) -> Console {
    let mut console = switch.console();
    assert_eq!(console.ask(&format!("debug/add {what}")), SUCCESS);
    console
}

#[test]
fn clients_come_and_go() {
    let switch = Switch::start(&[]);
    let mut all = listening(&switch, "port");
    let mut some = listening(&switch, "port/ep");
    let mut nothing = switch.console();
    let client = switch.plug(0, "he said \"x\"");
    assert_eq!(
        all.read_to("\"x\"\"\n"),
        "3021 port/+ 01\n3031 port/ep/+ Port 01 FD  0\n3023 port/descr Port 01 FD  0 -> \"he said \"x\"\"\n"
    );
    assert_eq!(some.read_to("\n"), "3031 port/ep/+ Port 01 FD  0\n");
    let other = switch.plug(1, "two");
    assert_eq!(
        all.read_to("\"two\"\n"),
        "3031 port/ep/+ Port 01 FD  1\n3023 port/descr Port 01 FD  1 -> \"two\"\n"
    );
    drop(other);
    assert_eq!(all.read_to("\n"), "3032 port/ep/- Port 01 FD  1\n");
    drop(client);
    assert_eq!(all.read_to("port/- 01\n"), "3032 port/ep/- Port 01 FD  0\n3022 port/- 01\n");
    assert_eq!(
        some.read_to("FD  0\n"),
        "3031 port/ep/+ Port 01 FD  1\n3032 port/ep/- Port 01 FD  1\n3032 port/ep/- Port 01 FD  0\n"
    );
    assert_eq!(all.ask("debug/del port"), SUCCESS);
    drop(switch.plug(0, "three"));
    assert_eq!((all.overhear(), nothing.overhear()), (String::new(), String::new()));
    switch.stop();
}

#[test]
fn ports_that_are_made_are_told() {
    let switch = Switch::start(&[]);
    let mut console = listening(&switch, "");
    console.send("port/create 12\nport/create 12\n");
    let text = console.read_to("port/+ 12\n");
    assert!(text.contains("1017 File exists"), "{text}");
    console.send("port/remove 12\n");
    assert_eq!(console.read_to("port/- 12\n"), format!("{SUCCESS}{PROMPT}3022 port/- 12\n"));
    assert_eq!(console.ask("debug/add port/+"), "1017 File exists\n");
    assert_eq!(console.ask("debug/add packet/in"), "1022 Invalid argument\n");
    assert_eq!(console.ask("debug/del fstp"), "1022 Invalid argument\n");
    assert_eq!(console.ask("debug/del port/+"), SUCCESS);
    assert_eq!(console.ask("debug/del port/+"), "1002 No such file or directory\n");
    let list = console.ask("debug/list");
    assert!(list.contains(
        "\nport/+                 021 OFF    new port\nport/-                 022 ON     closed port\n"
    ));
    assert!(!list.contains("packet") && !list.contains("fstp"), "{list}");
    switch.stop();
}

#[test]
fn stations_come_move_and_go() {
    let switch = Switch::start(&[]);
    let (one, other) = (switch.plug(0, "one"), switch.plug(0, "other"));
    one.call(0x0104);
    other.receive();
    // Who is there already is no event.
    let mut console = listening(&switch, "hash");
    one.call(0x0105);
    assert_eq!(console.read_to("\n"), "3011 hash/+ 02:71:68:00:01:05 VLAN 00:00 Port 1\n");
    other.call(0x0105);
    assert_eq!(
        console.read_to("Port 2\n"),
        "3012 hash/- 02:71:68:00:01:05 VLAN 00:00 Port 1\n3011 hash/+ 02:71:68:00:01:05 VLAN 00:00 Port 2\n"
    );
    drop(other);
    assert_eq!(console.read_to("\n"), "3012 hash/- 02:71:68:00:01:05 VLAN 00:00 Port 2\n");
    drop(one);
    assert_eq!(console.read_to("\n"), "3012 hash/- 02:71:68:00:01:04 VLAN 00:00 Port 1\n");
    switch.stop();
}

#[test]
fn events_that_find_no_room_are_counted() {
    let switch = Switch::start(&[]);
    let (one, other) = (switch.plug(0, "one"), switch.plug(0, "other"));
    let mut deaf = listening(&switch, "hash");
    let mut told = listening(&switch, "hash");
    const ROUNDS: u64 = 20;
    // Each round moves stations there and back; one who reads is told of each.
    for round in 0..ROUNDS {
        let (from, port) = if round % 2 == 0 { (&one, 1) } else { (&other, 2) };
        for number in 0..1000 {
            from.call(number);
            (if port == 1 { &other } else { &one }).receive();
        }
        told.read_to(&format!("hash/+ 02:71:68:00:03:e7 VLAN 00:00 Port {port}\n"));
    }
    let mut text = String::new();
    while !text.contains("debug/lost") {
        text.push_str(&deaf.read_to("\n"));
    }
    let at = text.find("3000 debug/lost ").expect("it was found");
    let lost: u64 = text[at..].split(' ').nth(2).and_then(|word| word.parse().ok()).expect("a number");
    let heard = text[..at].lines().count() as u64;
    assert!(text[..at].lines().all(|line| line.starts_with("3011 ") || line.starts_with("3012 ")));
    assert_eq!(heard + lost, 1000 + (ROUNDS - 1) * 2000, "{heard} heard, {lost} lost");
    assert!(told.ask("port/showinfo").ends_with(SUCCESS));
    switch.stop();
}
