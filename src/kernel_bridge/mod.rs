//! Bridges of the kernel's: `qhub bridge up`, `down` and `show`.
//!
//! * A *private* bridge has addresses of its own. Its VMs reach this host, and by NAT what this host reaches.
//! * A *public* one takes an interface over, with its addresses and routes. Its VMs are hosts of the interface's network.
//!
//! ```text
//! request -> facts -> plan: the steps -> journal -> each step is done     up
//!                                           |       one fails: undone
//!                                           v
//!                                        the steps, undone, last first    down
//! ```
//!
//! The plan is on disk before anything is changed, and a step can be undone however far it came: so `down` puts all
//! back, even if `up` was killed or the host's administrator has undone some of it. Nothing is changed that is not in the
//! journal. NetworkManager, systemd-networkd and their like are not fought: they have to leave the links alone.

mod consent;
mod facts;
mod journal;
mod kernel;
mod nft;
mod plan;
mod request;
mod routers;
mod run;
mod show;
mod step;
mod takeover;

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::geteuid;

use consent::{Direction, Question, session};
use facts::Facts;
use journal::{Journal, State, Store};
use kernel::Kernel;
use nft::Nft;
use plan::plan;
use routers::solicit;
use run::{Failure, apply_all, undo_all};
use step::{Family, Step, Takeover};
use takeover::is_gone;

use crate::host::netlink::{Address, Netlink};

pub use request::{BridgeName, Consent, Reach, Request};

/// Makes a bridge, or leaves all as it is.
///
/// # Errors
///
/// When there is something in the way, or the kernel refuses; says whether anything is left to put back.
pub fn up(request: &Request, consent: Consent) -> Result<()> {
    let name = &request.name;
    check_root(&format!("bridge up {name}"))?;
    let store = Store::lock()?;
    let journal = agreed(request, &store, consent).with_context(|| format!("bridge {name}"))?;
    let _whole = Undisturbed::begin()?;
    store.write(&journal)?;
    let others = forwarded_by_others(&store, name)?;
    let mut kernel = match Kernel::open(journal.clone(), others) {
        Ok(kernel) => kernel,
        Err(error) => return store.remove(name).and(Err(error)),
    };
    let result = apply_all(&mut kernel, name, &journal.steps).and_then(|()| {
        store
            .write(&Journal { state: State::Up, ..kernel.journal.clone() })
            .map_err(|error| Failure { error, left: undo_all(&mut kernel, name, &journal.steps) })
    });
    ask_routers(&mut kernel, &journal);
    match result {
        Ok(()) => {
            // It is up, whether or not anybody reads that.
            let _ = std::io::stdout().write_all(welcome(request, &journal).as_bytes());
            Ok(())
        }
        Err(Failure { error, left }) if left.is_empty() => {
            store.remove(name)?;
            Err(anyhow!("bridge {name}: {error:#}; everything is as before"))
        }
        Err(Failure { error, left }) => {
            Err(anyhow!("bridge {name}: {error:#}; {}", still_to_do(name, &left)))
        }
    }
}

/// Takes a bridge down, and puts back what was before it.
///
/// # Errors
///
/// When there is none of qhub's with this name, or something can't be put back; then another try can.
pub fn down(name: &BridgeName, consent: Consent) -> Result<()> {
    check_root(&format!("bridge down {name}"))?;
    let store = Store::lock()?;
    let Some(journal) = store.journal(name).with_context(|| format!("bridge {name}"))? else {
        bail!("bridge {name}: there is nothing to take down; 'qhub bridge show' tells what there is");
    };
    if let Some(takeover) = journal.takeover() {
        let answer = ask(name, takeover, Direction::ToInterface, consent);
        answer.with_context(|| format!("bridge {name}"))?;
    }
    let _whole = Undisturbed::begin()?;
    let mut kernel = Kernel::open(journal.clone(), forwarded_by_others(&store, name)?)?;
    // A full disk must not keep the network from being put back; the mark tells others how far that is, no more.
    let _ = store.write(&Journal { state: State::Going, ..journal.clone() });
    let left = undo_all(&mut kernel, name, &journal.steps);
    ask_routers(&mut kernel, &journal);
    if !left.is_empty() {
        return Err(anyhow!("bridge {name}: {}", still_to_do(name, &left)));
    }
    store.remove(name)?;
    // It is down, whether or not anybody reads that.
    let _ = std::io::stdout().write_all(farewell(&mut kernel, &journal).as_bytes());
    Ok(())
}

/// Prints what bridges there are.
///
/// # Errors
///
/// The kernel's, or those of the file system.
pub fn show() -> Result<()> {
    check_root("bridge show")?;
    let journals = Store::open()?.journals()?;
    let now = show::Now::look(&journals.readable).context("look at the network")?;
    Ok(std::io::stdout().write_all(show::show(&journals, &now).as_bytes())?)
}

fn check_root(command: &str) -> Result<()> {
    if !geteuid().is_root() {
        bail!("the host's network is root's; run 'sudo qhub {command}'");
    }
    Ok(())
}

/// The plan, once the user has agreed to it.
fn agreed(request: &Request, store: &Store, consent: Consent) -> Result<Journal> {
    let journal = plan(request, &Facts::gather(request, store)?)?;
    let Some(takeover) = journal.takeover() else { return Ok(journal) };
    ask(&request.name, takeover, Direction::ToBridge, consent)?;
    match consent {
        Consent::Given => Ok(journal),
        // The answer may have taken a while.
        Consent::Wanted => plan(request, &Facts::gather(request, store)?),
    }
}

fn ask(bridge: &BridgeName, takeover: &Takeover, direction: Direction, consent: Consent) -> Result<()> {
    let from = match direction {
        Direction::ToBridge => &takeover.interface,
        Direction::ToInterface => bridge.as_str(),
    };
    let staying = staying(from).with_context(|| format!("look at {from}"))?;
    consent.obtain(&Question { bridge, takeover, direction, staying, session: session() })
}

/// The addresses of a link that are bound to it.
fn staying(link: &str) -> std::io::Result<Vec<Address>> {
    let mut netlink = Netlink::open()?;
    let Some(link) = netlink.link(link)? else { return Ok(Vec::new()) };
    let mut addresses = netlink.addresses(Some(link.index))?;
    addresses.retain(|address| address.is_link_local_v6() || address.is_temporary());
    Ok(addresses)
}

/// Asks the routers that the kernel knew of to say who they are, wherever they are heard now.
fn ask_routers(kernel: &mut Kernel, journal: &Journal) {
    if let Some(takeover) = journal.takeover().filter(|takeover| !takeover.learned.is_empty()) {
        for name in [journal.bridge.as_str(), &takeover.interface] {
            if let Ok(Some(link)) = kernel.netlink.link(name) {
                // They say so in time anyway.
                let _ = solicit(link.index);
            }
        }
    }
}

fn forwarded_by_others(store: &Store, name: &BridgeName) -> Result<Vec<Family>> {
    let others = store.others(name)?;
    // What can't be read may need both.
    let needed = |family: &Family| {
        !others.unreadable.is_empty() || others.readable.iter().any(|journal| journal.forwards(*family))
    };
    Ok([Family::V4, Family::V6].into_iter().filter(needed).collect())
}

fn still_to_do(name: &BridgeName, left: &[Error]) -> String {
    let mut text = String::new();
    for error in left {
        // Writing to a string does not fail.
        let _ = write!(text, "{}{error:#}", if text.is_empty() { "" } else { "; " });
    }
    format!("not all could be put back: {text}; see to it, then run 'qhub bridge down {name}'")
}

/// What the VMs can do now.
fn welcome(request: &Request, journal: &Journal) -> String {
    let name = &request.name;
    let reach = match &request.reach {
        Reach::Host(addresses) => {
            let is_isolated = journal.steps.iter().any(Step::has_table);
            let limit = if is_isolated { "" } else { " unless this host forwards" };
            format!("VMs on it reach this host at {} and nothing else{limit}", step::List(addresses))
        }
        Reach::Nat(addresses) => {
            format!("VMs on it reach this host, and through it the Internet, at {}", step::List(addresses))
        }
        Reach::Lan(interface) => format!("VMs on it are in the network of {interface}"),
    };
    format!("{name} is up; {reach}. 'qhub bridge down {name}' puts all back.\n")
}

/// What nobody but the user can put back.
fn farewell(kernel: &mut Kernel, journal: &Journal) -> String {
    if let Some(takeover) = journal.takeover()
        && is_gone(&mut kernel.netlink, takeover, journal.mac()).unwrap_or(false)
    {
        let Takeover { interface, .. } = takeover;
        return format!("{interface} and the bridge are gone, and with them {}\n", takeover.contents());
    }
    if journal.steps.iter().any(Step::has_table) && Nft::find().is_none() {
        let command = nft::delete_command(&journal.bridge);
        return format!(
            "the program nft is gone; if the table of the bridge is left, this deletes it: {command}\n"
        );
    }
    String::new()
}

/// Signals wait while the network is being changed: the session that started this may end by it.
struct Undisturbed(SigSet);

impl Undisturbed {
    fn begin() -> Result<Self> {
        let signals = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGTSTP];
        let signals: SigSet = signals.into_iter().collect();
        let former = SigSet::thread_get_mask()?;
        signals.thread_block()?;
        Ok(Self(former))
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        // It can't fail with a mask that was in force before.
        let _ = self.0.thread_set_mask();
    }
}
