//! Ports: as the console shows and changes them, and as clients find them.

use super::client::Client;
use super::switch::Switch;
use crate::common::wait::{LIMIT, wait_for};

const SUCCESS: &str = "1000 Success\n";

#[test]
fn a_port_is_shown_with_its_clients() {
    let switch = Switch::start(&[]);
    let mut console = switch.console();
    assert_eq!(console.ask("port/print"), "0000 DATA END WITH '.'\n.\n1000 Success\n");
    let (one, other) =
        (switch.plug(5, "one"), switch.plug(0, "line\n.\n1000 Success\n3021 port/+ 09\r\u{1b}[2J"));
    one.call(1);
    other.receive();
    let text = console.ask("port/print");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3 + 2 * 5, "{text}");
    assert_eq!(lines[1], "Port 0001 untagged_vlan=0000 ACTIVE - Unnamed Allocatable");
    assert!(
        lines[2].starts_with(" Current User: ") && !lines[2].contains("User: NONE Access"),
        "{}",
        lines[2]
    );
    assert!(lines[2].ends_with(" Access Control: (User: NONE - Group: NONE)"), "{}", lines[2]);
    assert_eq!(lines[3], " IN:  pkts          0          bytes                    0");
    assert_eq!(lines[4], " OUT: pkts          1          bytes                   60");
    assert!(lines[5].starts_with("  -- endpoint ID 0001 module unix prog   : line"), "{}", lines[5]);
    assert_eq!(lines[8], " IN:  pkts          1          bytes                   60");
    assert_eq!(lines[10], "  -- endpoint ID 0000 module unix prog   : one");
    assert_eq!(
        console.ask("port/print 5").lines().nth(1),
        Some("Port 0005 untagged_vlan=0000 ACTIVE - Unnamed Allocatable")
    );
    assert_eq!(
        console.ask("vlan/print 0"),
        "0000 DATA END WITH '.'\nVLAN 0000\n -- Port 0001 tagged=0 active=1 status=Forwarding\n \
         -- Port 0005 tagged=0 active=1 status=Forwarding\n.\n1000 Success\n"
    );
    assert_eq!(console.ask("port/resetcounter 5"), SUCCESS);
    assert!(console.ask("port/print 5").contains(" IN:  pkts          0 "));
    assert!(console.ask("port/print 1").contains(" OUT: pkts          1 "));
    assert_eq!(console.ask("port/resetcounter"), SUCCESS);
    assert!(!console.ask("port/print").contains(" pkts          1 "));
    switch.stop();
}

#[test]
fn what_is_dropped_is_said() {
    let switch = Switch::start(&[]);
    let alone = switch.plug(0, "alone");
    alone.call(1);
    let mut console = switch.console();
    wait_for("a drop", LIMIT, || {
        console.ask("port/print 1").contains("\n DROPPED: pkts     1\n").then_some(())
    });
    switch.stop();
}

#[test]
fn ports_that_are_made_stay_and_are_not_given_away() {
    let switch = Switch::start(&["-n", "3"]);
    let mut console = switch.console();
    assert_eq!(console.ask("port/create 1"), SUCCESS);
    assert_eq!(console.ask("port/create 4"), "1022 Invalid argument\n");
    assert_eq!(console.ask("port/createauto"), "0000 DATA END WITH '.'\nPort 0002\n.\n1000 Success\n");
    assert_eq!(console.ask("port/print"), "0000 DATA END WITH '.'\n.\n1000 Success\n", "nobody is there");
    assert_eq!(console.ask("port/print 1"), "0000 DATA END WITH '.'\n.\n1006 No such device or address\n");
    assert_eq!(console.ask("vlan/print"), "0000 DATA END WITH '.'\nVLAN 0000\n.\n1000 Success\n");
    assert!(console.ask("vlan/allprint").contains("\n -- Port 0002 tagged=0 active=0 status=Discarding\n"));
    let any = switch.plug(0, "any");
    assert!(console.ask("port/print 3").contains(": any\n"));
    assert!(
        console
            .ask("port/allprint 1")
            .contains("Port 0001 untagged_vlan=0000 INACTIVE - NOT Unnamed Allocatable\n")
    );
    assert_eq!(console.ask("port/remove 3"), "1098 Address already in use\n");
    assert_eq!(console.ask("port/setnumports 2"), "1098 Address already in use\n");
    assert_eq!(console.ask("port/allocatable 1 1"), SUCCESS);
    let first = switch.plug(0, "first");
    assert!(console.ask("port/print 1").contains(": first\n"));
    drop((any, first));
    wait_for("them to leave", LIMIT, || {
        console.ask("port/allprint 3").contains("1006 No such").then_some(())
    });
    assert!(console.ask("port/allprint 1").contains("INACTIVE"), "it stays");
    assert_eq!(console.ask("port/remove 1"), SUCCESS);
    assert_eq!(console.ask("port/setnumports 2"), SUCCESS);
    assert!(console.ask("port/showinfo").contains("Numports=2\n"));
    switch.stop();
}

#[test]
fn an_endpoint_can_be_closed() {
    let switch = Switch::start(&[]);
    let (mut one, mut other) = (switch.plug(2, "one"), switch.plug(2, "other"));
    let mut console = switch.console();
    assert_eq!(console.ask("port/epclose 2 77"), "1006 No such device or address\n");
    assert_eq!(console.ask("port/epclose 1 1"), "1006 No such device or address\n");
    assert_eq!(console.ask("port/epclose 2 1"), SUCCESS);
    other.wait_for_end();
    assert!(console.ask("port/print 2").contains(": one\n"));
    assert_eq!(console.ask("port/epclose 2 0"), SUCCESS);
    one.wait_for_end();
    assert!(console.ask("port/print 2").contains("1006 No such"));
    switch.stop();
}

#[test]
fn a_port_can_be_for_one_user() {
    let switch = Switch::start(&[]);
    let mut console = switch.console();
    assert_eq!(console.ask("port/setuser 2 root"), "1006 No such device or address\n");
    assert_eq!(console.ask("port/create 2"), SUCCESS);
    assert_eq!(console.ask("port/setuser 2 no-such-user"), "1022 Invalid argument\n");
    assert_eq!(console.ask("port/setuser 2 54321"), SUCCESS);
    assert_eq!(console.ask("port/setgroup 2 root"), SUCCESS);
    assert!(console.ask("port/allprint 2").contains("(User: 54321 - Group: root)\n"));
    assert_eq!(console.ask("port/setuser 2 NONE"), SUCCESS);
    assert_eq!(console.ask("port/setgroup 2 ANY"), SUCCESS);
    assert!(console.ask("port/allprint 2").contains("(User: NONE - Group: NONE)\n"));
    switch.stop();
}

#[test]
fn a_hub_becomes_a_switch() {
    let switch = Switch::start(&["-hub"]);
    let clients: Vec<Client> = (0..3).map(|_| switch.plug(0, "")).collect();
    let mut console = switch.console();
    assert!(console.ask("port/showinfo").contains("HUB=true\n"));
    clients[0].call(1);
    for client in &clients[1..] {
        client.receive();
    }
    let answer = crate::common::wire::frame([0x02, 0x71, 0x68, 0, 0, 1], [0x02, 0x71, 0x68, 0, 0, 2], 60, 1);
    clients[1].send(&answer);
    assert_eq!((clients[0].receive(), clients[2].receive()), (answer.clone(), answer.clone()));
    assert_eq!(console.ask("port/sethub 0"), SUCCESS);
    clients[1].send(&answer);
    assert_eq!(clients[0].receive(), answer);
    clients[1].call(9);
    assert_ne!(clients[2].receive(), answer, "it is no hub any more");
    assert!(
        console
            .ask("hash/find 2:71:68:0:0:2")
            .contains("Addr: 02:71:68:00:00:02 VLAN 0000 to port: 002  age ")
    );
    assert_eq!(console.ask("hash/find 2:71:68:0:0:3"), "0000 DATA END WITH '.'\n.\n1019 No such device\n");
    assert_eq!(console.ask("hash/setexpire 7"), SUCCESS);
    assert_eq!(console.ask("hash/setsize 100"), SUCCESS);
    assert!(console.ask("hash/showinfo").contains("Hash size 8192\n"), "there is room for 100 already");
    assert_eq!(console.ask("hash/setsize 9000"), SUCCESS);
    assert!(console.ask("hash/showinfo").contains("Hash size 9000\nGC interval 0 secs\nGC expire 7 secs\n"));
    switch.stop();
}
