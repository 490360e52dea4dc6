//! What there is, and what is not as it was made.

use std::fmt::Write as _;

use anyhow::Result;

use super::journal::{Journal, Journals, State};
use super::nft::{self, Nft};
use super::step::{List, Step};
use crate::config::Cidr;
use crate::host::netlink::{Address, LinkRow, Netlink, Route};
use crate::host::sysctl::Setting;

/// What is there now.
#[derive(Debug)]
pub(super) struct Now {
    pub(super) links: Vec<LinkRow>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
    /// Those with a table of nft.
    pub(super) with_table: Vec<Journal>,
    /// The settings for forwarding that are on.
    pub(super) forwarding: Vec<Setting>,
}

impl Now {
    pub(super) fn look(journals: &[Journal]) -> Result<Self> {
        let mut netlink = Netlink::open()?;
        let steps = journals.iter().flat_map(|journal| &journal.steps);
        let forwarding = steps.filter_map(Step::forwarding);
        let forwarding = forwarding.filter_map(|step| Setting::read(step.family.forwarding()).transpose());
        let wants_table = |journal: &&Journal| journal.steps.iter().any(Step::has_table);
        let nft = Nft::find();
        let has_table = |journal: &&Journal| {
            nft.as_ref().is_some_and(|nft| nft.has_table(&journal.bridge).unwrap_or(false))
        };
        Ok(Self {
            links: netlink.links()?,
            addresses: netlink.addresses(None)?,
            routes: netlink.routes(None)?,
            with_table: journals.iter().filter(wants_table).filter(has_table).cloned().collect(),
            forwarding: forwarding.collect::<std::io::Result<_>>()?,
        })
    }

    fn bridge(&self, journal: &Journal) -> Option<&LinkRow> {
        self.links.iter().find(|link| journal.is_bridge(link))
    }
}

/// A paragraph for each bridge.
pub(super) fn show(journals: &Journals, now: &Now) -> String {
    let Journals { readable, unreadable } = journals;
    if readable.is_empty() && unreadable.is_empty() {
        return "no bridges; 'qhub bridge up' makes one\n".to_owned();
    }
    let unreadable = unreadable.iter().map(|error| format!("{error:#}\n"));
    readable.iter().map(|journal| paragraph(journal, now)).chain(unreadable).collect()
}

fn paragraph(journal: &Journal, now: &Now) -> String {
    let name = &journal.bridge;
    let mut text = format!("{name}: {}, {}\n", kind(journal), state(journal));
    let mut line = |what: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {what}: {value}");
    };
    if let Some(bridge) = now.bridge(journal) {
        let addresses: Vec<_> =
            now.addresses.iter().filter(|address| address.link() == bridge.index).collect();
        line("addresses", or_none(&addresses));
        let ports = now.links.iter().filter(|link| link.master == Some(bridge.index));
        line("ports", or_none(&ports.map(|link| &link.name).collect::<Vec<_>>()));
    }
    let table = format!("nft table inet {}", nft::table(name));
    for step in journal.steps.iter().filter(|_| now.with_table.contains(journal)) {
        if let Step::Nat(inside) = step {
            let inside: Vec<Cidr> = inside.iter().map(Cidr::network).collect();
            line("NAT", format!("{} ({table})", List(&inside)));
        }
        if *step == Step::Isolation {
            line("isolated by", table.clone());
        }
    }
    if journal.state == State::Up {
        for trouble in journal.steps.iter().filter_map(|step| trouble(step, journal, now)) {
            line("changed since", trouble);
        }
    }
    text
}

fn kind(journal: &Journal) -> String {
    match journal.takeover() {
        Some(takeover) => format!("has taken over {}", takeover.interface),
        None => "private".to_owned(),
    }
}

fn state(journal: &Journal) -> String {
    match journal.state {
        State::Up => "up".to_owned(),
        State::Coming => format!("half up; put all back: qhub bridge down {}", journal.bridge),
        State::Going => format!("half down; go on: qhub bridge down {}", journal.bridge),
    }
}

fn or_none<T: std::fmt::Display>(items: &[T]) -> String {
    if items.is_empty() { "none".to_owned() } else { List(items).to_string() }
}

/// What somebody else has undone of a step.
fn trouble(step: &Step, journal: &Journal, now: &Now) -> Option<String> {
    let name = &journal.bridge;
    let Some(bridge) = now.bridge(journal) else {
        return matches!(step, Step::Bridge { .. }).then(|| format!("the bridge {name} is gone"));
    };
    let of_bridge = |address: &&Address| address.link() == bridge.index;
    match step {
        Step::Bridge { .. } => {
            (bridge.name != name.as_str()).then(|| format!("{name} is called {} now", bridge.name))
        }
        Step::Settings(_) => None,
        Step::Up => (!bridge.is_up).then(|| format!("{name} is down")),
        Step::Addresses(wanted) => {
            let has =
                |cidr: &Cidr| now.addresses.iter().filter(of_bridge).any(|one| one.ip() == Some(cidr.ip()));
            missing(wanted.iter().filter(|cidr| !has(cidr)))
        }
        Step::Takeover(takeover) => {
            let has =
                |wanted: &Address| now.addresses.iter().filter(of_bridge).any(|one| one.is_same(wanted));
            let has_route = |wanted: &Route| {
                let wanted = wanted.moved(takeover.index, bridge.index);
                now.routes.iter().any(|one| one.is_same(&wanted))
            };
            missing(takeover.addresses.iter().filter(|address| !has(address)))
                .or_else(|| missing(takeover.routes.iter().filter(|route| !has_route(route))))
        }
        Step::Nat(_) | Step::Isolation => {
            (!now.with_table.contains(journal)).then(|| "the table of nft is gone".to_owned())
        }
        Step::Forwarding(forwarding) => {
            let path = forwarding.family.forwarding();
            let is_on = now.forwarding.iter().any(|setting| setting.path == path && setting.value != "0");
            (!is_on).then(|| format!("{path} is off"))
        }
        Step::Port { interface } => {
            let is_port = |link: &&LinkRow| link.name == *interface && link.master == Some(bridge.index);
            (!now.links.iter().any(|link| is_port(&link)))
                .then(|| format!("{interface} is not a port of {name}"))
        }
    }
}

fn missing<'a, T: std::fmt::Display + 'a>(gone: impl Iterator<Item = &'a T>) -> Option<String> {
    let gone: Vec<&T> = gone.collect();
    (!gone.is_empty()).then(|| format!("{} is gone", List(&gone)))
}
