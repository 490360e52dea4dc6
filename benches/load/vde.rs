//! How a client joins a VDE switch, and how a switch lets it in: what libvdeplug and `vde_switch` do, without
//! either.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{fs, process};

use anyhow::{Context, ensure};
use nix::libc::AF_UNIX;
use socket2::{SockRef, Socket};

use crate::socket::patiently;

const MAGIC: u32 = 0xfeed_face;
const VERSION: u32 = 3;

/// A new port, whichever is free.
const ANY_PORT: u32 = 0;

/// Magic, version, and which port.
const HEAD: usize = 12;

/// A `sockaddr_un`: its family and room for a path.
const FAMILY: usize = 2;
const PATH: usize = 108;

/// What the hub asks for on its VDE sockets. The relay has the same.
const SEND_BUFFER: usize = 512 << 10;

/// Joins the switch of a folder. Gives the control connection, which has to stay open, and the socket for
/// frames.
pub(crate) fn join(folder: &Path) -> anyhow::Result<(Socket, Socket)> {
    let mut control = patiently(|| UnixStream::connect(folder.join("ctl")))
        .with_context(|| format!("connect to the VDE switch in {}", folder.display()))?;
    let own = folder.join(format!(".{}-00000", process::id()));
    let data = UnixDatagram::bind(&own)?;
    control.write_all(&[&words()[..], &address(&own)?, b"bench"].concat())?;
    let mut answer = [0; FAMILY + PATH];
    control.read_exact(&mut answer).context("the VDE switch refused")?;
    data.connect(path(&answer))?;
    fs::remove_file(&own)?;
    Ok((OwnedFd::from(control).into(), OwnedFd::from(data).into()))
}

/// The folder of a switch that has one port.
pub(crate) struct Door {
    folder: PathBuf,
    listener: UnixListener,
}

/// A client, as its switch sees it.
pub(crate) struct Port {
    pub(crate) data: UnixDatagram,
    pub(crate) _control: Option<UnixStream>,
}

impl Door {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir(folder)?;
        Ok(Self { folder: folder.to_owned(), listener: UnixListener::bind(folder.join("ctl"))? })
    }

    /// Waits for the client.
    pub(crate) fn accept(&self) -> anyhow::Result<Port> {
        let (mut control, _) = self.listener.accept()?;
        let mut request = [0; HEAD + FAMILY + PATH];
        control.read_exact(&mut request).context("half a request")?;
        let own = self.folder.join("data");
        let data = UnixDatagram::bind(&own)?;
        data.connect(path(&request[HEAD..]))?;
        SockRef::from(&data).set_send_buffer_size(SEND_BUFFER)?;
        control.write_all(&address(&own)?)?;
        Ok(Port { data, _control: Some(control) })
    }
}

fn words() -> Vec<u8> {
    [MAGIC, VERSION, ANY_PORT].into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn address(path: &Path) -> anyhow::Result<Vec<u8>> {
    let path = path.as_os_str().as_bytes();
    ensure!(path.len() < PATH, "{} is too long", path.escape_ascii());
    let mut address = u16::try_from(AF_UNIX)?.to_ne_bytes().to_vec();
    address.extend(path);
    address.resize(FAMILY + PATH, 0);
    Ok(address)
}

fn path(address: &[u8]) -> &Path {
    let path = address[FAMILY..].split(|byte| *byte == 0).next().unwrap_or_default();
    Path::new(OsStr::from_bytes(path))
}
