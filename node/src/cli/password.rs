//! Passwords from files, stdin and the environment; never from arguments, which everybody on the
//! machine can read.

use std::io::{IsTerminal as _, Read, stdin};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::exit::{Exit, Failure};
use super::out;

/// The variable that may hold the password of an MQTT client.
const VARIABLE: &str = "ROOKERY_PASSWORD";
/// What fits a CONNECT.
const MAX_BYTES: u64 = 65_535;

/// The password that an MQTT client sends: from the file, or the environment if there is none.
pub fn of_client(file: Option<&Path>) -> Result<Option<Vec<u8>>, Failure> {
    match file {
        None => Ok(std::env::var(VARIABLE).ok().map(String::into_bytes)),
        Some(path) => read(path).map(Some),
    }
}

/// The password in a file, or with `-` on stdin, without the line end after it.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if path != Path::new("-") {
        let wrong = |e| Failure::new(Exit::Usage, format!("password file {}: {e}", path.display()));
        return take(std::fs::File::open(path).map_err(wrong)?).map_err(wrong);
    }
    if !stdin().is_terminal() {
        return Ok(take(stdin().lock())?);
    }
    out::say("password:");
    let shown = tcgetattr(stdin()).map_err(std::io::Error::from)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(stdin(), OptionalActions::Flush, &hidden).map_err(std::io::Error::from)?;
    let mut line = String::new();
    let typed = stdin().read_line(&mut line);
    tcsetattr(stdin(), OptionalActions::Now, &shown).map_err(std::io::Error::from)?;
    typed?;
    Ok(take(line.as_bytes())?)
}

fn take(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut password = Vec::new();
    from.take(MAX_BYTES).read_to_end(&mut password)?;
    if password.ends_with(b"\n") {
        password.pop();
    }
    Ok(password)
}
