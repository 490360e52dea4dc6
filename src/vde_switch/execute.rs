//! The commands done: on the hub, and with what is known of it.

use std::path::PathBuf;
use std::time::Instant;

use hub_protocol::mac::Mac;
use nix::errno::Errno;

use super::answer::{self, Answer, BANNER};
use super::command::{Selection, SwitchCommand};
use super::events::Subscriptions;
use super::menu;
use super::users::Names;
use crate::hub::{Hub, NumberedPort, PortPlan, Station, SwitchState};

/// What stays the same of a switch as long as it runs.
#[derive(Debug)]
pub(super) struct Facts {
    /// Its own address.
    pub(super) mac: Mac,
    /// When it was started.
    pub(super) started: Instant,
    /// Where clients come to.
    pub(super) folder: PathBuf,
    /// Permissions of the sockets there.
    pub(super) socket_mode: u32,
    /// The socket for consoles, with its permissions.
    pub(super) mgmt: Option<(PathBuf, u32)>,
}

/// A switch, for one command after the other.
pub(super) struct Switch<'a> {
    /// What does the work.
    pub(super) hub: &'a mut Hub,
    /// What is known of it.
    pub(super) facts: &'a Facts,
    /// The time.
    pub(super) now: Instant,
}

impl Switch<'_> {
    /// Does what a session asks for that is told of what it has subscribed to, or something that cannot be told.
    pub(super) fn execute(
        &mut self,
        command: &SwitchCommand,
        subscriptions: Option<&mut Subscriptions>,
    ) -> Answer {
        let empty = command.has_data().then(String::new);
        match self.attempt(command, subscriptions.ok_or(Errno::ENOSYS)) {
            Ok(data) => Answer { data, result: Ok(()) },
            Err(errno) => Answer { data: empty, result: Err(errno) },
        }
    }

    fn attempt(
        &mut self,
        command: &SwitchCommand,
        subscriptions: Result<&mut Subscriptions, Errno>,
    ) -> Result<Option<String>, Errno> {
        match command {
            SwitchCommand::Help(prefix) => return Ok(Some(menu::help(prefix))),
            SwitchCommand::ShowInfo => return Ok(Some(self.show_info())),
            SwitchCommand::FolderInfo => return Ok(Some(self.folder_info())),
            SwitchCommand::PortInfo => return Ok(Some(answer::port_info(&self.state()?))),
            SwitchCommand::CreateAuto => {
                return Ok(Some(format!("Port {:04}\n", self.plan()?.create_auto()?)));
            }
            SwitchCommand::PrintPorts(selection) => return self.print_ports(*selection).map(Some),
            SwitchCommand::PrintVlans(selection) => return self.print_vlans(*selection).map(Some),
            SwitchCommand::HashInfo => return Ok(Some(answer::hash_info(&self.state()?))),
            SwitchCommand::PrintStations => return Ok(Some(answer::stations(self.stations()?.iter()))),
            SwitchCommand::Find(mac, vid) => return self.find(*mac, *vid).map(Some),
            SwitchCommand::ListEvents => return Ok(Some(subscriptions?.list())),
            SwitchCommand::AddEvents(prefix) => subscriptions?.add(prefix)?,
            SwitchCommand::DropEvents(prefix) => subscriptions?.remove(prefix)?,
            SwitchCommand::SetNumPorts(limit) => self.plan()?.set_limit(*limit)?,
            SwitchCommand::SetMode(mode) => self.hub.set_mode(*mode),
            SwitchCommand::Create(number) => self.plan()?.create(*number)?,
            SwitchCommand::Remove(number) => self.plan()?.remove(*number)?,
            SwitchCommand::SetAllocatable(number, on) => {
                self.plan()?.set_allocatable(*number, *on)?;
            }
            SwitchCommand::SetUser(number, name) => {
                let user = find_name(name.as_deref(), Names::of_users)?;
                self.plan()?.set_user(*number, user)?;
            }
            SwitchCommand::SetGroup(number, name) => {
                let group = find_name(name.as_deref(), Names::of_groups)?;
                self.plan()?.set_group(*number, group)?;
            }
            SwitchCommand::CloseEndpoint(number, id) => self.hub.close_endpoint(*number, *id)?,
            SwitchCommand::ResetCounters(number) => self.hub.reset_counters(*number, self.now)?,
            SwitchCommand::SetHashSize(stations) => {
                let state = self.state()?;
                self.hub.set_memory(state.ageing, state.fdb_max.max(*stations));
            }
            SwitchCommand::SetAgeing(ageing) => {
                let state = self.state()?;
                self.hub.set_memory(*ageing, state.fdb_max);
            }
        }
        Ok(None)
    }

    /// It has none any more once it is about to end.
    fn state(&self) -> Result<SwitchState, Errno> {
        self.hub.state(self.now).ok_or(Errno::ESHUTDOWN)
    }

    fn stations(&self) -> Result<Vec<Station>, Errno> {
        self.hub.stations(self.now).ok_or(Errno::ESHUTDOWN)
    }

    fn plan(&mut self) -> Result<&mut PortPlan, Errno> {
        self.hub.plan().ok_or(Errno::ESHUTDOWN)
    }

    fn show_info(&self) -> String {
        let Facts { mac, started, mgmt, .. } = self.facts;
        let uptime = self.now.saturating_duration_since(*started).as_secs();
        let mgmt = mgmt.as_ref().map_or_else(String::new, |(path, mode)| {
            format!("mgmt {} perm 0{mode:03o}\n", answer::one_line(&path.display().to_string()))
        });
        format!("{BANNER}\npid {} MAC {mac} uptime {uptime}\n{mgmt}", std::process::id())
    }

    fn folder_info(&self) -> String {
        let Facts { folder, socket_mode, .. } = self.facts;
        let folder = answer::one_line(&folder.display().to_string());
        format!("ctl dir {folder}\nstd mode 0{socket_mode:03o}\n")
    }

    fn print_ports(&self, selection: Selection) -> Result<String, Errno> {
        let state = self.state()?;
        let (users, groups) = (Names::of_users(), Names::of_groups());
        let chosen = choose(&state, selection)?;
        Ok(chosen.iter().map(|port| answer::port(port, &users, &groups)).collect())
    }

    /// There is one VLAN, of all frames.
    fn print_vlans(&self, Selection { number, is_all }: Selection) -> Result<String, Errno> {
        match number {
            None | Some(0) => {
                let state = self.state()?;
                Ok(answer::vlan(state.ports.iter().filter(|port| is_all || port.is_active)))
            }
            Some(1..4095) => Err(Errno::ENXIO),
            Some(_) => Err(Errno::EINVAL),
        }
    }

    fn find(&self, mac: Mac, vid: u16) -> Result<String, Errno> {
        let station = self.hub.station(vid, mac, self.now).ok_or(Errno::ENODEV)?;
        Ok(answer::stations([&station].into_iter()))
    }
}

/// The ports that are to be printed.
fn choose(state: &SwitchState, selection: Selection) -> Result<Vec<&NumberedPort>, Errno> {
    let is_shown = |port: &&NumberedPort| selection.is_all || port.is_active;
    let Some(number) = selection.number else {
        return Ok(state.ports.iter().filter(is_shown).collect());
    };
    if number > state.limit {
        return Err(Errno::EINVAL);
    }
    let port = state.ports.iter().filter(is_shown).find(|port| port.number == number);
    Ok(vec![port.ok_or(Errno::ENXIO)?])
}

fn find_name(name: Option<&str>, names: impl FnOnce() -> Names) -> Result<Option<u32>, Errno> {
    name.map(|name| names().find(name).ok_or(Errno::EINVAL)).transpose()
}
