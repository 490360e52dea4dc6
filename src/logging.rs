//! Logging that never blocks the loop: lines go through a bounded channel to a thread that writes
//! them to stderr, or to the system's log. When that is not read, lines are lost, and their number is told.

use std::ffi::{CStr, OsStr};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use env_logger::fmt::default_kv_format;
use env_logger::{Builder, Target};
use log::{Level, LevelFilter};
use nix::syslog::{Facility, LogFlags, Severity, openlog, syslog};

/// Lines that may wait for stderr.
const BACKLOG: usize = 4096;

/// The target of what somebody asked for: logged whatever the filter.
pub const ASKED: &str = "asked";

/// How long the last lines may take.
const FLUSH: Duration = Duration::from_millis(200);
const FLUSH_TRIES: u32 = 20;

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The way to the writer; lines go into it as whole writes.
struct Lines {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.messages.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of a running program.
#[derive(Debug)]
pub struct Log {
    messages: SyncSender<Message>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => f.debug_tuple("Line").field(&line.len()).finish(),
            Self::Flush(_) => f.write_str("Flush"),
        }
    }
}

impl Log {
    /// Starts to log what `filter` lets through to stderr.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(filter: &str) -> io::Result<Self> {
        let mut builder = Builder::new();
        builder.format_target(false).format_timestamp_millis();
        Self::start_with(builder, filter, "stderr", io::stderr())
    }

    /// The same to the system's log, as `name`; where there is none, everything is lost.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn to_syslog(name: &'static CStr, filter: &str) -> io::Result<Self> {
        openlog(Some(name), LogFlags::LOG_PID, Facility::LOG_DAEMON)?;
        let mut builder = Builder::new();
        builder.format(|line, record| {
            write!(line, "{}{}", severity_digit(record.level()), record.args())?;
            default_kv_format(line, record.key_values())?;
            writeln!(line)
        });
        Self::start_with(builder, filter, "syslog", Syslog)
    }

    fn start_with(
        mut builder: Builder,
        filter: &str,
        name: &'static str,
        mut output: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let (messages, lines) = sync_channel(BACKLOG);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&lines, &counter, name, &mut output))?;
        builder
            .parse_filters(filter)
            .filter_module(ASKED, LevelFilter::Info)
            .target(Target::Pipe(Box::new(Lines { messages: messages.clone(), lost })))
            .init();
        Ok(Self { messages })
    }

    /// Waits until what was logged is written, unless stderr is stuck.
    #[expect(clippy::disallowed_methods, reason = "at the end, after the loop")]
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        for _ in 0..FLUSH_TRIES {
            if self.messages.try_send(Message::Flush(done.clone())).is_ok() {
                // Stuck or written: either way it is over.
                let _ = written.recv_timeout(FLUSH);
                return;
            }
            thread::sleep(FLUSH / FLUSH_TRIES);
        }
    }
}

/// Writes until all senders are gone. A stderr that is closed, or on a full disk, changes
/// nothing for the hub, so errors are not looked at.
fn write_lines(lines: &Receiver<Message>, lost: &AtomicU64, name: &str, output: &mut impl Write) {
    for message in lines {
        match message {
            Message::Line(line) => {
                let _ = output.write_all(&line);
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let line = format!("qhub: {lost} log lines were lost, because {name} was not read\n");
                    let _ = output.write_all(line.as_bytes());
                }
            }
            Message::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

/// The system's log, which takes whole lines with a digit for their severity in front.
struct Syslog;

impl Write for Syslog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let (severity, text) = match line.split_first() {
            Some((digit @ b'0'..=b'9', text)) => (severity(*digit), text),
            _ => (Severity::LOG_WARNING, line),
        };
        syslog(severity, OsStr::from_bytes(text.trim_ascii_end()))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn severity_digit(level: Level) -> char {
    match level {
        Level::Error => '3',
        Level::Warn => '4',
        Level::Info => '6',
        Level::Debug | Level::Trace => '7',
    }
}

fn severity(digit: u8) -> Severity {
    match digit {
        b'3' => Severity::LOG_ERR,
        b'4' => Severity::LOG_WARNING,
        b'6' => Severity::LOG_INFO,
        _ => Severity::LOG_DEBUG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_backlog_are_counted_not_waited_for() {
        let (messages, lines) = sync_channel(2);
        let lost = Arc::new(AtomicU64::new(0));
        let mut log = Lines { messages, lost: Arc::clone(&lost) };
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(lost.load(Ordering::Relaxed), 2);
        drop(log);
        let mut written = Vec::new();
        write_lines(&lines, &lost, "stderr", &mut written);
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "one\nqhub: 2 log lines were lost, because stderr was not read\ntwo\n"
        );
    }
}
