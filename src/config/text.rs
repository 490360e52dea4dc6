//! The values in a specification: names, places, sizes and times.

use std::path::PathBuf;
use std::time::Duration;

use super::spec::{SpecError, refuse};
use super::{HostPort, UNIX_NAME_MAX, UnixName};

const NAME_MAX: usize = 32;

/// Splits at single commas; a doubled one stands for itself.
pub(super) fn split_at_single_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(char);
        }
    }
    parts
}

pub(super) fn parse_unix_name(name: &str) -> Result<UnixName, SpecError> {
    let bare = name.strip_prefix('@').unwrap_or(name);
    if bare.is_empty() || bare.contains('\0') {
        return refuse("a unix socket needs a name: unix:PATH, or unix:@NAME for an abstract one");
    }
    if bare.len() > UNIX_NAME_MAX {
        return refuse(format!(
            "the name of a unix socket has at most {UNIX_NAME_MAX} octets, this one has {}; choose a shorter path",
            bare.len()
        ));
    }
    Ok(match name.strip_prefix('@') {
        Some(abstract_name) => UnixName::Abstract(abstract_name.to_owned()),
        None => UnixName::Path(PathBuf::from(name)),
    })
}

/// `default_host` makes `PORT` alone enough; 0 is allowed as a port where the system may choose.
pub(super) fn parse_host_port(
    text: &str,
    default_host: Option<&str>,
    lowest: u16,
) -> Result<HostPort, SpecError> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => (default_host.unwrap_or_default(), text),
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address,
        None if text.contains(':') && host.contains(':') => {
            return refuse(format!("'{text}': write an IPv6 address in brackets, as in [::1]:5555"));
        }
        None => host,
    };
    if host.is_empty() {
        let everybody = if default_host.is_some() { " (everybody is 0.0.0.0:PORT)" } else { "" };
        return refuse(format!("'{text}' names no host; write HOST:PORT{everybody}"));
    }
    match port.parse() {
        Ok(port) if port >= lowest => Ok(HostPort { host: host.to_owned(), port }),
        Ok(0) => refuse(format!("'{text}': port 0 is nobody's; write 1 to 65535")),
        _ => refuse(format!("'{port}' is no port; write {lowest} to 65535")),
    }
}

/// Checks the name of a port or an instance.
pub fn parse_name(name: &str) -> Result<String, SpecError> {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('.') || !name.chars().all(is_plain) {
        return refuse(format!(
            "'{name}' is no name; write 1 to {NAME_MAX} letters, digits, '-', '_' and '.', the first no '.'"
        ));
    }
    Ok(name.to_owned())
}

pub(super) fn parse_mode(text: &str) -> Result<u32, SpecError> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => refuse(format!("mode={text}: write octal permissions, as in mode=0660")),
    }
}

pub(super) fn parse_size(text: &str, min: usize, max: usize, key: &str) -> Result<usize, SpecError> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    match digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(size) if (min..=max).contains(&size) => Ok(size),
        _ => refuse(format!("{key}={text}: write {min} to {max} octets (K and M mean KiB and MiB)")),
    }
}

/// A time between `min` and `max`, which `range` shows.
pub(super) fn parse_duration(
    text: &str,
    (min, max): (Duration, Duration),
    key: &str,
    range: &str,
) -> Result<Duration, SpecError> {
    let time = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => number.parse().ok().map(Duration::from_millis),
        (None, Some(number)) => number.parse().ok().map(Duration::from_secs),
        (None, None) => None,
    };
    match time {
        Some(time) if (min..=max).contains(&time) => Ok(time),
        _ => refuse(format!("{key}={text}: write {range}")),
    }
}

/// A number between `min` and `max`, decimal or, behind `0x`, hexadecimal.
pub(super) fn parse_number<N>(text: &str, min: N, max: N, key: &str) -> Result<N, SpecError>
where
    N: TryFrom<u64> + PartialOrd + std::fmt::Display,
{
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match number.ok().and_then(|number| N::try_from(number).ok()) {
        Some(number) if min <= number && number <= max => Ok(number),
        _ => refuse(format!("{key}={text}: write {min} to {max}")),
    }
}

pub(super) fn parse_switch(text: &str, key: &str) -> Result<bool, SpecError> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => refuse(format!("{key}={text}: write on or off")),
    }
}
