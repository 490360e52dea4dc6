//! Giving up root: what needs it is opened first, and then it is gone for good.

use std::env;
use std::ffi::CString;
use std::io;

use anyhow::{Context, Result, bail};
use caps::CapSet;
use nix::sys::prctl;
use nix::unistd::{self, Uid, User, geteuid, getuid, initgroups, setresgid, setresuid};

/// Who is to own what is opened from now on, if we are root and not to stay it: `named`, or who called
/// sudo.
///
/// # Errors
///
/// When there is no such user, or we are not root and so can't become one.
pub fn successor(named: Option<&str>) -> Result<Option<User>> {
    let (own, caller) = (geteuid(), env::var("SUDO_USER").ok());
    if own != getuid() {
        bail!("qhub is not made to be setuid; take that off it (chmod u-s), and call it by sudo");
    }
    let Some(name) = chosen(named, caller.as_deref(), own.is_root()) else { return Ok(None) };
    let Some(user) = find(name).with_context(|| format!("look up the user {name}"))? else {
        bail!("there is no user {name}; name one with --user (--user root stays root)");
    };
    if user.uid == own {
        return Ok(None);
    }
    if !own.is_root() {
        bail!("only root can become {name}; run qhub as {name}, or leave out --user");
    }
    Ok(Some(user))
}

/// Whoever is `named`; else, as root, the `caller` of sudo.
fn chosen<'a>(named: Option<&'a str>, caller: Option<&'a str>, is_root: bool) -> Option<&'a str> {
    named.or(caller.filter(|name| is_root && !name.is_empty()))
}

/// A user by name or number.
fn find(name: &str) -> io::Result<Option<User>> {
    let by_name = User::from_name(name)?;
    match name.parse() {
        Ok(number) if by_name.is_none() => Ok(User::from_uid(Uid::from_raw(number))?),
        _ => Ok(by_name),
    }
}

/// Gives up every right beyond those of `successor`, or of who we are unless that is root, with no way
/// back. There may be no other thread yet: capabilities are each thread's own.
///
/// # Errors
///
/// When the system refuses, or we could still return.
pub fn give_up(successor: Option<&User>) -> Result<()> {
    match successor {
        Some(user) => become_user(user).with_context(|| format!("become {}", user.name))?,
        None if geteuid().is_root() => return Ok(()),
        None => {}
    }
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).context("give up the capabilities")?;
    }
    prctl::set_no_new_privs().context("give up setuid programs")?;
    if unistd::setuid(unistd::ROOT).is_ok() {
        bail!("the system would let this process become root again");
    }
    Ok(())
}

fn become_user(user: &User) -> Result<()> {
    initgroups(&CString::new(user.name.as_str())?, user.gid).context("take the groups")?;
    setresgid(user.gid, user.gid, user.gid).context("take the group")?;
    setresuid(user.uid, user.uid, user.uid).context("take the user")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_is_somebody_else_by_sudo() {
        for (named, caller, is_root, user) in [
            (None, None, true, None),
            (None, Some("ann"), true, Some("ann")),
            (None, Some(""), true, None),
            (None, Some("ann"), false, None),
            (Some("bob"), Some("ann"), true, Some("bob")),
            (Some("bob"), None, false, Some("bob")),
        ] {
            assert_eq!(chosen(named, caller, is_root), user, "{named:?} {caller:?} {is_root}");
        }
    }

    #[test]
    fn users_have_names_and_numbers() {
        let own = find(&geteuid().to_string()).unwrap().unwrap();
        assert_eq!(find(&own.name).unwrap().unwrap().uid, geteuid());
        assert!(successor(Some(&own.name)).unwrap().is_none());
        let error = successor(Some("no-such-user-here")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no user no-such-user-here; name one with --user (--user root stays root)"
        );
    }
}
