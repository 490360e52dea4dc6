//! `qhub`: parse, build, run, exit code.

use std::io::Write;
use std::process::ExitCode;

use qhub::cli::{BridgeCommand, Cli, Command, consent};
use qhub::daemon;
use qhub::instance::{Macs, random_mac};
use qhub::kernel_bridge;
use qhub::plug;
use qhub::vde_switch::{self, Args};

fn main() -> ExitCode {
    let result = match Cli::read() {
        Command::Run(args) => daemon::run(&args),
        Command::VdeSwitch { words } => vde_switch::run(&Args::read(words)),
        Command::Mac { instance, names } => print_macs(&instance, &names).map_err(Into::into),
        Command::Plug(args) => plug::run(&args),
        Command::Bridge(BridgeCommand::Up(args)) => {
            let (request, consent) = args.request();
            kernel_bridge::up(&request, consent)
        }
        Command::Bridge(BridgeCommand::Down { name, yes }) => kernel_bridge::down(&name, consent(yes)),
        Command::Bridge(BridgeCommand::Show) => kernel_bridge::show(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when stderr is closed.
            let _ = writeln!(std::io::stderr(), "qhub: {error:#}{}", advice(&error));
            ExitCode::FAILURE
        }
    }
}

/// What helps against an error that can come from anywhere.
fn advice(error: &anyhow::Error) -> &'static str {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    if causes.any(|cause| cause.raw_os_error() == Some(nix::libc::EMFILE)) {
        return "; raise 'ulimit -n'";
    }
    ""
}

fn print_macs(instance: &str, names: &[String]) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    if names.is_empty() {
        writeln!(out, "{}", random_mac())?;
    }
    let macs = Macs::of(instance);
    names.iter().try_for_each(|name| writeln!(out, "{}", macs.of_vm(&format!("vm {name}"))))
}
