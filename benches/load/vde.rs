//! How a client joins a VDE switch: what libvdeplug does, without its library.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::{fs, process};

use anyhow::{Context, ensure};
use nix::libc::AF_UNIX;
use socket2::Socket;

use crate::socket::patiently;

const MAGIC: u32 = 0xfeed_face;
const VERSION: u32 = 3;

/// A new port, whichever is free.
const ANY_PORT: u32 = 0;

/// A `sockaddr_un`: its family and room for a path.
const FAMILY: usize = 2;
const PATH: usize = 108;

/// Joins the switch of a folder. Gives the control connection, which has to stay open, and the socket for
/// frames.
pub(crate) fn join(folder: &Path) -> anyhow::Result<(Socket, Socket)> {
    let mut control = patiently(|| UnixStream::connect(folder.join("ctl")))
        .with_context(|| format!("connect to the VDE switch in {}", folder.display()))?;
    let own = folder.join(format!(".{}-00000", process::id()));
    let data = UnixDatagram::bind(&own)?;
    control.write_all(&request(&own)?)?;
    let mut answer = [0; FAMILY + PATH];
    control.read_exact(&mut answer).context("the VDE switch refused")?;
    let path = answer[FAMILY..].split(|byte| *byte == 0).next().unwrap_or_default();
    data.connect(Path::new(OsStr::from_bytes(path)))?;
    fs::remove_file(&own)?;
    Ok((OwnedFd::from(control).into(), OwnedFd::from(data).into()))
}

fn request(own: &Path) -> anyhow::Result<Vec<u8>> {
    let path = own.as_os_str().as_bytes();
    ensure!(path.len() < PATH, "{} is too long", own.display());
    let mut request = Vec::new();
    for word in [MAGIC, VERSION, ANY_PORT] {
        request.extend(word.to_ne_bytes());
    }
    request.extend(u16::try_from(AF_UNIX)?.to_ne_bytes());
    request.extend(path);
    request.resize(request.len() + PATH - path.len(), 0);
    request.extend(b"bench");
    Ok(request)
}
