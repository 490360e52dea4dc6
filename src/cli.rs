//! The command line: flags and help.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::bridge::{BridgeConfig, MAX_PORTS, Mode};
use crate::config::{self, Cidr, Framing, PortKind, PortSpec};
use crate::kernel_bridge::{BridgeName, Consent, Reach, Request};
use crate::link::is_one_interface;

/// The name under which qhub is VDE's switch.
pub const VDE_SWITCH: &str = "vde_switch";

const PORTS_HELP: &str = "\
Ports:
  unix:PATH[,mode=0600]     serve a unix socket; each connection is a port
  unix:@NAME[,any-user=on]  the same under an abstract name, for this user and root
  tcp:[HOST:]PORT           serve TCP (HOST: 127.0.0.1; everybody: 0.0.0.0; IPv6: [::1]:5555)
  connect:unix:PATH         dial a QEMU that listens (server=on), and again when it goes
  connect:tcp:HOST:PORT     the same over TCP (listen=, server=on)
  vde:DIR[,mode=0700][,group=NAME]
                            be a VDE switch: vde_plug, QEMU's vde and all others join at the folder DIR
    [,port-group=NAME]      an entrance DIR/NAME to the same segment, with ports and options of its own
  connect:vde:DIR[,port=N][,port-group=NAME]
                            join a VDE switch, and again when it goes
  fd:N                      an inherited socket: connected, listening, or bound for datagrams; or a TAP
  udp:[HOST:]PORT           frames in UDP datagrams; each source becomes a port
    ,remote=HOST:PORT       only this one
  dgram:PATH[,mode=0600]    frames in unix datagrams; each source becomes a port
    ,remote=PATH            only this one
  mcast:GROUP:PORT          the bus that QEMUs make of a multicast group
    [,iface=ADDR][,ttl=1]   on the interface with this address (127.0.0.1: this host only) or name
  l2tpv3:[HOST:]PORT,remote=HOST:PORT,txsession=N[,rxsession=N]
    [,txcookie=N,rxcookie=N[,cookie64=on]][,counter=on]
                            frames in L2TPv3 over UDP; QEMU's own names, as this end sees them

Ports of this host's own network; as root, but for a TAP that was made for you, and 'bridge:'
  tap:[NAME]                a TAP, made or opened; vm%d is numbered
    [,bridge=BR][,netns=NAME][,addr=CIDR][,mtu=N]
                            its bridge, its network namespace, its addresses
    [,persist=on][,up=off]  it stays when qhub ends; it is left down
  bridge:BR[,helper=PATH]   a TAP on a bridge by qemu-bridge-helper, which needs no root
  macvtap:IFACE[,mode=bridge]
                            the cable of an interface; one VM, unless mode=passthru
  macvtap:/dev/tapN         a macvtap that there is
  packet:IFACE              the cable of an interface, which keeps its addresses
  Of each TAP and macvtap:
    ,offload=off            the host segments and sums itself what it sends here

Options of every port, as ,key=value (a comma inside a value is doubled):
  name=NAME                 what it is called; the ports of a listener are numbered
  queue=OCTETS              what may wait for its peer (1M)
  pause=TIME                how long others may wait for it, at a stretch and per second (50ms)
  max-frame=OCTETS          the longest frame, either way (69632); longer ones are dropped
  pad=60                    pad the frames that leave by it with zeros

Options of udp: and dgram: without remote=:
  max-peers=N               the most sources at a time (64)
  idle=TIME                 how long one is silent before it gives way to a new one (300s)";

/// Joins virtual machines into one Ethernet segment, without root.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = PORTS_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a switch (what qhub does without a command)
    #[command(after_help = PORTS_HELP)]
    Run(RunArgs),
    /// Print MAC addresses for VMs: the same for the same NAME, or a random one
    Mac {
        /// The instance
        #[arg(long = "name", value_name = "LAB", default_value = "default", value_parser = config::parse_name)]
        instance: String,
        /// What the addresses are for
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Join a segment to stdin and stdout, for a pipe to another one, as through ssh
    #[command(after_help = PLUG_HELP)]
    Plug(PlugArgs),
    /// Be a VDE switch with the options and the console of VDE's own (also when called by this name)
    #[command(name = VDE_SWITCH, disable_help_flag = true)]
    VdeSwitch {
        /// The options of vde_switch; --help lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
        words: Vec<OsString>,
    },
    /// Make a bridge of the kernel's that VMs reach this host, its network or the Internet by (root)
    #[command(subcommand)]
    Bridge(BridgeCommand),
}

const PLUG_HELP: &str = "\
Two segments, joined by any pipe:
  dpipe qhub plug = ssh HOST qhub plug
  dpipe vde_plug vde:///run/lab.ctl = ssh HOST qhub plug

A plug ends when either side does. Exit status: 0 at the end of stdin, when all that came has been sent on, and
after SIGINT or SIGTERM; 1 with a message when stdout is no longer read, when the segment is gone or could not be
reached, and when stdin holds no frames. Frames that are longer than the framing allows are dropped.";

const UP_HELP: &str = "\
Without --take the bridge has an address of its own, and forwarding by sysctl and NAT by nft let its VMs
reach what this host reaches. With --take it takes over an Ethernet interface: the interface's addresses and
routes move to the bridge, and its VMs are hosts of the same network. Either way all is as before when a step
fails, and after 'qhub bridge down', whatever happened in between.

NetworkManager, systemd-networkd and DHCP clients must be told to leave the bridge and the interface alone
(such as 'nmcli device set IFACE managed no'), or they will undo parts of it. Rules of a firewall that name
the interface have to name the bridge.";

/// What to do about bridges.
#[derive(Debug, Subcommand)]
pub enum BridgeCommand {
    /// Make a bridge: a private one with NAT, or one that takes over an interface
    #[command(after_help = UP_HELP)]
    Up(BridgeUpArgs),
    /// Take a bridge down and put everything back as it was, also what a killed 'up' has left
    Down {
        /// The bridge
        #[arg(value_name = "NAME", default_value_t)]
        name: BridgeName,
        /// Do not ask before addresses move back to an interface
        #[arg(long)]
        yes: bool,
    },
    /// Print what bridges there are, and what of them somebody else has changed
    Show,
}

/// What bridge to make.
#[derive(Args, Debug)]
pub struct BridgeUpArgs {
    /// Its name (qhub0; with --take it has to be given)
    #[arg(value_name = "NAME")]
    name: Option<BridgeName>,
    /// This host's address on it, with the length of the prefix; one each for IPv4 and IPv6, or more
    #[arg(long = "addr", value_name = "CIDR", default_value = "10.55.0.1/24", value_parser = parse_address)]
    addresses: Vec<Cidr>,
    /// VMs reach this host only: no forwarding, no NAT
    #[arg(long)]
    no_nat: bool,
    /// Take over this interface, with its addresses and routes
    #[arg(long = "take", value_name = "IFACE", requires = "name", conflicts_with_all = ["addresses", "no_nat"])]
    interface: Option<String>,
    /// Do not ask before addresses move from an interface
    #[arg(long)]
    yes: bool,
}

/// What to plug in where.
#[derive(Args, Debug)]
pub struct PlugArgs {
    /// What to join: connect:unix:PATH, connect:tcp:HOST:PORT or connect:vde:DIR; the running instance's unix socket, if
    /// nothing is named. Options of ports hold for both sides
    #[arg(value_name = "PORT")]
    pub port: Option<PortSpec>,
    /// How frames are told apart on stdin and stdout
    #[arg(long, value_name = "FRAMING", value_enum, default_value = "vde")]
    pub framing: Framing,
    /// Name of the instance to join
    #[arg(long, value_name = "LAB", default_value = "default", value_parser = config::parse_name, conflicts_with = "port")]
    pub name: String,
    /// Log what comes and goes, with counters, and not warnings only; twice and thrice: more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// How a switch is to run.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Where VMs join: the instance's unix socket is always served; a PORT named here takes the
    /// place of TCP 127.0.0.1:5555
    #[arg(value_name = "PORT", value_parser = parse_port)]
    pub ports: Vec<PortSpec>,
    /// Name of this instance
    #[arg(long, value_name = "LAB", default_value = "default", value_parser = config::parse_name)]
    pub name: String,
    /// Repeat every frame to every port
    #[arg(long)]
    pub hub: bool,
    /// Do not serve TCP 127.0.0.1:5555
    #[arg(long)]
    pub no_tcp: bool,
    /// The most ports
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_ports: u16,
    /// Forget a station this long after its last frame
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    ageing: u32,
    /// The most stations to remember
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=65536))]
    fdb_max: u32,
    /// Started as root, become this user as soon as what needs root is open; who called sudo, if
    /// nobody is named ('root' stays root)
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// What to log: error, warn, info, debug, trace, or a list like info,qhub::hub=debug
    #[arg(long, value_name = "FILTER", value_parser = parse_filter)]
    pub log: Option<String>,
    /// Log warnings and errors only
    #[arg(short, long, conflicts_with_all = ["verbose", "log"])]
    quiet: bool,
    /// Log more; twice: every frame that was dropped
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "log")]
    verbose: u8,
}

impl Cli {
    /// What the command line says; ends the process with status 2 and a message when it is wrong.
    pub fn read() -> Command {
        let mut words = env::args_os();
        let name = words.next().map(PathBuf::from);
        if name.is_some_and(|path| path.file_name() == Some(VDE_SWITCH.as_ref())) {
            return Command::VdeSwitch { words: words.collect() };
        }
        let cli = Self::parse();
        let command = cli.command.unwrap_or(Command::Run(cli.run));
        let checked = match &command {
            Command::Run(args) => args.check(),
            Command::Plug(args) => args.check(),
            Command::Mac { .. } | Command::VdeSwitch { .. } | Command::Bridge(_) => Ok(()),
        };
        if let Err(message) = checked {
            Self::command().error(ErrorKind::ValueValidation, message).exit();
        }
        command
    }
}

impl BridgeUpArgs {
    /// The bridge that is asked for.
    pub fn request(self) -> (Request, Consent) {
        let reach = match self.interface {
            Some(interface) => Reach::Lan(interface),
            None if self.no_nat => Reach::Host(self.addresses),
            None => Reach::Nat(self.addresses),
        };
        (Request { name: self.name.unwrap_or_default(), reach }, consent(self.yes))
    }
}

/// Whether the user has agreed beforehand.
pub fn consent(yes: bool) -> Consent {
    if yes { Consent::Given } else { Consent::Wanted }
}

fn parse_address(text: &str) -> Result<Cidr, String> {
    let cidr: Cidr = text.parse()?;
    cidr.check_for_host().map(|()| cidr)
}

impl PlugArgs {
    /// Sees that there is somebody to join.
    fn check(&self) -> Result<(), String> {
        match &self.port {
            Some(PortSpec { kind: PortKind::Connect(_), .. }) | None => Ok(()),
            Some(PortSpec { kind: PortKind::Vde(vde), .. }) => {
                Err(format!("to join the VDE switch there, write connect:vde:{}", vde.folder.display()))
            }
            Some(PortSpec { kind, .. }) => Err(format!(
                "'{kind}' is nothing that a plug joins; write connect:unix:PATH, connect:tcp:HOST:PORT or connect:vde:DIR, and let 'qhub run' open '{kind}'"
            )),
        }
    }

    /// What to log.
    pub fn log_filter(&self) -> &'static str {
        match self.verbose {
            0 => "warn",
            1 => "info",
            2 => "debug",
            _ => "trace",
        }
    }
}

impl ValueEnum for Framing {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Vde, Self::Qemu]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Vde => {
                PossibleValue::new("vde").help("vde_plug's: 16 bits of length, frames of up to 9234 octets")
            }
            Self::Qemu => {
                PossibleValue::new("qemu").help("QEMU's: 32 bits of length, frames of up to 69632 octets")
            }
        })
    }
}

impl RunArgs {
    /// Sees that the ports fit together.
    fn check(&self) -> Result<(), String> {
        for (index, port) in self.ports.iter().enumerate() {
            for other in &self.ports[..index] {
                if let Some(name) = &port.options.name
                    && other.options.name.as_ref() == Some(name)
                {
                    return Err(format!("two ports are named '{name}'; give each its own name="));
                }
                if let Some((interface, _)) =
                    port.kind.joined().filter(|&joined| other.kind.joined() == Some(joined))
                {
                    return Err(format!(
                        "two ports join {interface}: what comes in by one would go out by the other for ever; leave out one"
                    ));
                }
                if let (PortKind::Mcast(group), PortKind::Mcast(other)) = (&port.kind, &other.kind)
                    && (group.is_same_bus(other) || is_one_interface(group, other))
                {
                    return Err(format!(
                        "two ports on the bus {}: each would hear the other for ever; leave out one, or give each an iface= of its own",
                        group.address
                    ));
                }
            }
        }
        Ok(())
    }

    /// The bridge that is asked for.
    pub fn bridge(&self) -> BridgeConfig {
        BridgeConfig {
            mode: if self.hub { Mode::Hub } else { Mode::Switch },
            ageing: Duration::from_secs(u64::from(self.ageing)),
            fdb_max: usize::try_from(self.fdb_max).unwrap_or(usize::MAX),
        }
    }

    /// The most ports.
    pub fn max_ports(&self) -> usize {
        usize::from(self.max_ports).min(MAX_PORTS)
    }

    /// What to log.
    pub fn log_filter(&self) -> &str {
        match (&self.log, self.quiet, self.verbose) {
            (Some(filter), ..) => filter,
            (None, true, _) => "warn",
            (None, false, 0) => "info",
            (None, false, 1) => "debug",
            (None, false, _) => "trace",
        }
    }
}

/// Reads a port; whoever writes a command behind an option hears what is wrong.
fn parse_port(text: &str) -> Result<PortSpec, String> {
    if Cli::command().find_subcommand(text).is_some() {
        return Err(format!("'{text}' is a command, which stands in front of all options: qhub {text} ..."));
    }
    text.parse().map_err(|error: config::SpecError| error.to_string())
}

/// Checks levels, which would pass for the names of modules that log nothing.
fn parse_filter(filter: &str) -> Result<String, String> {
    for part in filter.split(',') {
        let level = part.rsplit('=').next().unwrap_or(part);
        if level.parse::<log::LevelFilter>().is_err() {
            return Err(format!("'{level}' is no level; write off, error, warn, info, debug or trace"));
        }
    }
    Ok(filter.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> RunArgs {
        let cli = Cli::try_parse_from([&["qhub"], args].concat()).unwrap();
        match cli.command {
            None => cli.run,
            Some(Command::Run(args)) => args,
            Some(Command::Mac { .. } | Command::Plug(_) | Command::VdeSwitch { .. } | Command::Bridge(_)) => {
                panic!("not run")
            }
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_what_a_bare_qhub_does() {
        for args in [&["--hub", "--no-tcp", "tcp:1"][..], &["run", "--hub", "--no-tcp", "tcp:1"]] {
            let args = run(args);
            assert!(args.hub && args.no_tcp);
            assert_eq!(args.ports.len(), 1);
        }
        let args = run(&[]);
        assert_eq!(
            (args.max_ports(), args.bridge().ageing.as_secs(), args.bridge().fdb_max),
            (1024, 300, 8192)
        );
        assert_eq!(args.log_filter(), "info");
        assert_eq!(run(&["-q"]).log_filter(), "warn");
        assert_eq!(run(&["-vv"]).log_filter(), "trace");
    }

    #[test]
    fn numbers_have_two_ends() {
        for (flag, low, high) in
            [("--max-ports", 1, 1024), ("--ageing", 1, 1_000_000), ("--fdb-max", 1, 65536)]
        {
            for (value, is_good) in [(low - 1, false), (low, true), (high, true), (high + 1, false)] {
                let args = ["qhub", flag, &value.to_string()];
                assert_eq!(Cli::try_parse_from(args).is_ok(), is_good, "{flag} {value}");
            }
        }
    }

    #[test]
    fn a_bridge_is_private_unless_it_takes_an_interface() {
        let up = |args: &[&str]| {
            let cli = Cli::try_parse_from([&["qhub", "bridge", "up"], args].concat())?;
            match cli.command {
                Some(Command::Bridge(BridgeCommand::Up(args))) => Ok(args.request()),
                other => panic!("not up: {other:?}"),
            }
        };
        let cidr = |text: &str| -> Cidr { text.parse().unwrap() };
        let is = |args: &[&str], name: &str, reach: Reach, consent: Consent| {
            let (request, given) = up(args).unwrap_or_else(|error: clap::Error| panic!("{args:?}: {error}"));
            assert_eq!((request.name.as_str(), request.reach, given), (name, reach, consent), "{args:?}");
        };
        is(&[], "qhub0", Reach::Nat(vec![cidr("10.55.0.1/24")]), Consent::Wanted);
        is(&["b", "--no-nat"], "b", Reach::Host(vec![cidr("10.55.0.1/24")]), Consent::Wanted);
        let both = vec![cidr("10.1.0.1/16"), cidr("fd00::1/64")];
        is(&["--addr", "10.1.0.1/16", "--addr", "fd00::1/64"], "qhub0", Reach::Nat(both), Consent::Wanted);
        is(&["b", "--take", "eth0", "--yes"], "b", Reach::Lan("eth0".into()), Consent::Given);
        for bad in [&["--take", "eth0"][..], &["b", "--take", "eth0", "--no-nat"], &["--addr", "10.1.0.0/16"]]
        {
            assert!(up(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_filter_names_levels() {
        for good in ["info", "WARN", "info,qhub::hub=debug", "off"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in ["debgu", "", "info,qhub=loud", "qhub::hub"] {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_given_once() {
        run(&["tcp:1,name=a", "tcp:2,name=b"]).check().unwrap();
        let error = run(&["tcp:1,name=a", "tcp:2", "tcp:3,name=a"]).check().unwrap_err();
        assert!(error.contains("two ports are named 'a'"), "{error}");
    }

    #[test]
    fn a_network_of_the_host_is_joined_once() {
        for (one, other, is_good) in [
            ("tap:a", "tap:b", true),
            ("bridge:br0", "tap:a,bridge=br1", true),
            ("bridge:br0", "tap:a,bridge=br0", false),
            ("packet:eth0", "macvtap:eth1", true),
            ("packet:eth0", "macvtap:eth0", false),
            ("packet:eth0", "packet:eth0", false),
            ("bridge:br0", "tap:a,bridge=br0,netns=lab", true),
            ("tap:b,bridge=br0,netns=lab", "tap:a,bridge=br0,netns=lab", false),
        ] {
            assert_eq!(run(&[one, other]).check().is_ok(), is_good, "{one} {other}");
        }
    }

    #[test]
    fn a_bus_is_joined_once() {
        for (one, other, is_good) in [
            ("mcast:239.0.0.1:1", "mcast:239.0.0.1:2", true),
            ("mcast:239.0.0.1:1", "mcast:239.0.0.2:1", true),
            ("mcast:239.0.0.1:1,iface=10.0.0.1", "mcast:239.0.0.1:1,iface=10.0.0.2", true),
            ("mcast:239.0.0.1:1,iface=10.0.0.1", "mcast:239.0.0.1:1,iface=10.0.0.1,ttl=2", false),
            ("mcast:239.0.0.1:1,iface=10.0.0.1", "mcast:239.0.0.1:1", false),
            ("mcast:239.0.0.1:1,iface=lo", "mcast:239.0.0.1:1,iface=127.0.0.1", false),
            ("mcast:239.0.0.1:1", "mcast:239.0.0.1:1", false),
        ] {
            let checked = run(&[one, other]).check();
            assert_eq!(checked.is_ok(), is_good, "{one} {other}: {checked:?}");
        }
    }
}
