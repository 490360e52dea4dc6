//! Pipe links: frames that come in by one descriptor and leave by another, in vde_plug's framing or in
//! QEMU's.
//!
//! Both descriptors are inherited, and O_NONBLOCK belongs to whoever else has them too. So a pipe is opened
//! anew; a socket can't be, and gets back the flags that it had.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hub_protocol::{plug, stream};
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{Link, Received, SendError};
use crate::batch::{ARENA, FrameBatch, Run, Taken};
use crate::config::Framing;

// A frame of one octet is a record of three there and of five here: even those fit.
const _: () = assert!((plug::PREFIX_LEN + plug::MAX_FRAME + plug::ROOM) / 3 * 5 <= ARENA);

/// A peer behind two ends of pipes, or of sockets.
#[derive(Debug)]
pub struct PipeLink {
    // Dropped before the input: where both are one socket, its flags were looked up there first.
    output: End,
    input: End,
    is_output_polled: bool,
    framing: Framing,
    decoder: plug::Decoder,
    /// The beginning of a record of QEMU's that has not arrived whole.
    tail: Vec<u8>,
    /// Records of vde_plug's on their way out.
    encoded: Vec<u8>,
    /// The rest of a record that the pipe took only the beginning of.
    cut: Vec<u8>,
    fault: Option<io::Error>,
}

impl PipeLink {
    /// A link that receives from `input` and sends to `output`.
    ///
    /// # Errors
    ///
    /// When they are neither pipes nor sockets, or the system refuses to unblock them.
    pub fn new(input: OwnedFd, output: OwnedFd, framing: Framing) -> Result<Self> {
        let input = End::new(input, Direction::In).context("stdin")?;
        let output = End::new(output, Direction::Out).context("stdout")?;
        Ok(Self {
            output,
            input,
            is_output_polled: false,
            framing,
            decoder: plug::Decoder::default(),
            tail: Vec::new(),
            encoded: Vec::new(),
            cut: Vec::new(),
            fault: None,
        })
    }

    /// Reads what there is into `batch`; says how many octets were read, and for how many there was room.
    fn fill(&mut self, batch: &mut FrameBatch) -> io::Result<(usize, usize)> {
        let mut input = &self.input.file;
        match self.framing {
            Framing::Vde => {
                let room = self.decoder.room();
                let offered = room.len().min(batch.limit());
                let taken = input.read(&mut room[..offered])?;
                let decoded = self.decoder.advance(taken, |frame| batch.append(frame));
                self.fault = decoded.err().map(out_of_step);
                Ok((taken, offered))
            }
            Framing::Qemu => {
                let filled = batch.fill_stream(&mut self.tail, |room| input.read(room))?;
                self.fault = filled.fault.map(out_of_step);
                Ok((filled.taken, filled.offered))
            }
        }
    }

    /// Sends what the pipe takes of `run` in vde_plug's framing, in one write.
    fn send_encoded(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.encoded.clear();
        for frame in stream::frames(run.records) {
            if self.encoded.len() >= plug::ROOM || !plug::append(&mut self.encoded, frame) {
                break;
            }
        }
        if self.encoded.is_empty() && run.frames > 0 {
            return Err(SendError::Refused(io::ErrorKind::InvalidInput.into()));
        }
        let written = self.output.write(&self.encoded)?;
        let (mut taken, mut end) = (Taken::default(), 0);
        for frame in stream::frames(run.records) {
            if end >= written {
                break;
            }
            end += plug::PREFIX_LEN + frame.len();
            taken.octets += stream::PREFIX_LEN + frame.len();
            taken.frames += 1;
        }
        self.cut.extend_from_slice(&self.encoded[written..end]);
        Ok(taken)
    }

    /// The output is polled only while it is full.
    fn poll_output(&mut self, registry: &Registry, token: Token, wanted: bool) -> io::Result<()> {
        if wanted != self.is_output_polled {
            let fd = self.output.file.as_raw_fd();
            if wanted {
                SourceFd(&fd).register(registry, token, Interest::WRITABLE)?;
            } else {
                SourceFd(&fd).deregister(registry)?;
            }
            self.is_output_polled = wanted;
        }
        Ok(())
    }
}

fn out_of_step(fault: impl fmt::Display) -> io::Error {
    broken(format!("{fault}; is the framing of both ends the same?"))
}

fn broken(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl Link for PipeLink {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.input.file.as_raw_fd()).register(registry, token, Interest::READABLE)?;
        self.poll_output(registry, token, interest.is_writable())
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.poll_output(registry, token, interest.is_writable())
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.poll_output(registry, Token(0), false)?;
        SourceFd(&self.input.file.as_raw_fd()).deregister(registry)
    }

    fn receive(&mut self, batch: &mut FrameBatch) -> io::Result<Received> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let (taken, offered) = match self.fill(batch) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Received::More),
            Err(error) => return Err(error),
        };
        match taken {
            0 if self.is_at_boundary() => Err(io::ErrorKind::UnexpectedEof.into()),
            0 => Err(broken("its end came in the middle of a frame")),
            _ if self.fault.is_none() && taken < offered => Ok(Received::Drained),
            _ => Ok(Received::More),
        }
    }

    fn send(&mut self, run: Run<'_>) -> Result<Taken, SendError> {
        self.flush()?;
        if self.is_cut() {
            return Ok(Taken::default());
        }
        match self.framing {
            Framing::Vde => self.send_encoded(run),
            Framing::Qemu => {
                let written = self.output.write(run.records)?;
                let cut = stream::cut(run.records, written);
                self.cut.extend_from_slice(&run.records[written..cut.end]);
                Ok(Taken { octets: cut.end, frames: cut.frames + usize::from(cut.end > cut.whole) })
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_cut() {
            let written = self.output.write(&self.cut)?;
            self.cut.drain(..written);
        }
        Ok(())
    }

    fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    fn max_frame(&self) -> usize {
        match self.framing {
            Framing::Vde => plug::MAX_FRAME,
            Framing::Qemu => stream::MAX_FRAME,
        }
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    fn is_at_boundary(&self) -> bool {
        self.decoder.is_at_boundary() && self.tail.is_empty()
    }
}

/// Which way an end goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

/// An end of a pipe or a socket, which does not block as long as this lives.
#[derive(Debug)]
struct End {
    file: File,
    /// What is to be put back.
    flags: Option<OFlag>,
}

impl End {
    fn new(fd: OwnedFd, direction: Direction) -> Result<Self> {
        let file = File::from(fd);
        let kind = file.metadata()?.file_type();
        if !kind.is_fifo() && !kind.is_socket() {
            bail!(
                "it is neither a pipe nor a socket, and can't be waited for; let cat stand between: \
                 'cat FILE | qhub plug' or 'qhub plug | cat > FILE'"
            );
        }
        if let Some(file) = reopen(&file, direction) {
            return Ok(Self { file, flags: None });
        }
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { file, flags: Some(flags) })
    }

    /// Writes what fits: 0 octets when nothing does.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&self.file).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                other => return other,
            }
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(flags) = self.flags {
            // It can't fail for a descriptor that is open.
            let _ = fcntl(&self.file, FcntlArg::F_SETFL(flags));
        }
    }
}

/// A description of our own for a pipe, if there is to be one. Not for a FIFO: one that is opened when its
/// writer has gone never tells of its end.
fn reopen(pipe: &File, direction: Direction) -> Option<File> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let target = fs::read_link(&path).ok()?;
    if !target.as_os_str().as_bytes().starts_with(b"pipe:[") {
        return None;
    }
    let mut options = OpenOptions::new();
    options.read(direction == Direction::In).write(direction == Direction::Out);
    // Who is another user than the maker of the pipe may not.
    options.custom_flags(OFlag::O_NONBLOCK.bits()).open(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, PipeWriter, pipe};

    const BOTH: [Framing; 2] = [Framing::Vde, Framing::Qemu];

    /// A link, and the ends of its peer.
    fn plugged(framing: Framing) -> (PipeLink, PipeWriter, PipeReader) {
        let ((input, to), (from, output)) = (pipe().unwrap(), pipe().unwrap());
        (PipeLink::new(input.into(), output.into(), framing).unwrap(), to, from)
    }

    /// Frames of odd sizes, as records of a batch and as they look on the pipe.
    fn frames(framing: Framing, count: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut records, mut wire) = (Vec::new(), Vec::new());
        for number in 0..count {
            let frame = vec![number.to_le_bytes()[0]; 14 + number * 7919 % 1501];
            assert!(stream::append(&mut records, &frame));
            let append = match framing {
                Framing::Vde => plug::append,
                Framing::Qemu => stream::append,
            };
            assert!(append(&mut wire, &frame));
        }
        (records, wire)
    }

    #[test]
    fn a_cut_record_is_finished_and_nothing_comes_between() {
        for framing in BOTH {
            let (mut link, _to, mut from) = plugged(framing);
            let (records, wire) = frames(framing, 300);
            let (mut rest, mut got, mut cuts) = (Run::of(&records), Vec::new(), 0);
            while rest.frames > 0 || link.is_cut() {
                // A second time before anything is read: the cut record comes first.
                for _ in 0..2 {
                    let (sent, behind) = rest.split(link.send(rest).unwrap());
                    assert_eq!(sent, Run::of(sent.records));
                    rest = behind;
                    cuts += usize::from(link.is_cut());
                }
                let mut some = [0; 5000];
                let octets = from.read(&mut some).unwrap();
                got.extend_from_slice(&some[..octets]);
                link.flush().unwrap();
            }
            drop(link);
            from.read_to_end(&mut got).unwrap();
            assert!(cuts > 10 && got == wire, "{framing:?}: {cuts} cuts");
        }
    }

    #[test]
    fn what_comes_in_pieces_is_received_whole() {
        for framing in BOTH {
            let (mut link, mut to, _from) = plugged(framing);
            let (records, wire) = frames(framing, 40);
            let (mut batch, mut got) = (FrameBatch::default(), Vec::new());
            for piece in wire.chunks(3) {
                to.write_all(piece).unwrap();
                batch.clear(ARENA);
                assert_eq!(link.receive(&mut batch).unwrap(), Received::Drained);
                got.extend_from_slice(batch.records());
            }
            assert!(got == records, "{framing:?}");
            batch.clear(ARENA);
            assert_eq!(link.receive(&mut batch).unwrap(), Received::Nothing);
            drop(to);
            assert_eq!(link.receive(&mut batch).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_receive_takes_no_more_than_it_may() {
        for framing in BOTH {
            let (mut link, mut to, _from) = plugged(framing);
            to.write_all(&frames(framing, 20).1).unwrap();
            let mut batch = FrameBatch::default();
            batch.clear(2000);
            assert_eq!(link.receive(&mut batch).unwrap(), Received::More);
            assert!(batch.records().len() < 2100, "{framing:?}");
        }
    }

    #[test]
    fn the_shortest_frames_that_fill_the_decoder_fill_no_arena() {
        let (mut link, mut to, _from) = plugged(Framing::Vde);
        let mut wire = [0, 1, 7].repeat(plug::ROOM / 3);
        wire.push(0);
        to.write_all(&wire).unwrap();
        let mut batch = FrameBatch::default();
        link.receive(&mut batch).unwrap();
        assert_eq!(Run::of(batch.records()).frames, plug::ROOM / 3);
        assert!(batch.lost().total() == 0 && !link.is_at_boundary());
    }

    #[test]
    fn frames_before_a_bad_length_are_received() {
        for (framing, said) in
            [(Framing::Vde, "length 9235 exceeds 9234"), (Framing::Qemu, "length 4294967295 exceeds 69632")]
        {
            let (mut link, mut to, _from) = plugged(framing);
            let (records, mut wire) = frames(framing, 2);
            wire.extend(match framing {
                Framing::Vde => &[0x24, 0x13, 1][..],
                Framing::Qemu => &[0xff; 5],
            });
            to.write_all(&wire).unwrap();
            let mut batch = FrameBatch::default();
            assert_eq!(link.receive(&mut batch).unwrap(), Received::More);
            assert_eq!(batch.records(), records);
            let error = link.receive(&mut batch).unwrap_err();
            assert!(
                error.kind() == io::ErrorKind::InvalidData && error.to_string().contains(said),
                "{error}"
            );
        }
    }

    #[test]
    fn an_end_in_mid_frame_is_a_fault() {
        for framing in BOTH {
            let (mut link, mut to, _from) = plugged(framing);
            to.write_all(&[0]).unwrap();
            drop(to);
            let mut batch = FrameBatch::default();
            assert_eq!(link.receive(&mut batch).unwrap(), Received::Drained);
            assert_eq!(link.receive(&mut batch).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused() {
        let (mut link, _to, _from) = plugged(Framing::Vde);
        let mut records = Vec::new();
        assert!(stream::append(&mut records, &[0; plug::MAX_FRAME]));
        assert!(stream::append(&mut records, &[0; plug::MAX_FRAME + 1]));
        let rest = Run::of(&records);
        let (sent, rest) = rest.split(link.send(rest).unwrap());
        assert_eq!((sent.frames, rest.frames), (1, 1));
        assert!(matches!(link.send(rest), Err(SendError::Refused(_))));
    }
}
