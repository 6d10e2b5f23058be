//! Packs as bytes: what the log stores and the nodes exchange.

use serde::{Deserialize, Serialize};

use super::{Command, Epoch, NodeId, Pack};

/// First byte of an encoded pack.
const VERSION: u8 = 1;
/// How many kinds of [`Command`] this build knows.
const COMMAND_KINDS: u32 = 23;

/// Why bytes are not a pack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    #[error("the pack has format version {0}, this node knows {VERSION}")]
    Version(u8),
    #[error("the pack has a command of kind {0}, this node knows {COMMAND_KINDS} kinds; upgrade it")]
    UnknownCommand(u32),
    #[error("the pack is damaged: {0}")]
    Damaged(#[from] postcard::Error),
    #[error("the pack is damaged: {0} bytes follow its end")]
    TrailingBytes(usize),
    #[error("the pack is damaged: a command in parts is itself a part")]
    NestedParts,
    #[error("this build understands feature level {understood}, the cluster uses {used}; start a newer one")]
    Outdated { understood: u32, used: u32 },
}

#[derive(Serialize, Deserialize)]
struct Header {
    origin: NodeId,
    epoch: Epoch,
    seq: u64,
    commands: u32,
}

impl Pack {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Self::encode_header(self.origin, self.epoch, self.seq, self.commands.len() as u32);
        for command in &self.commands {
            bytes = postcard::to_extend(command, bytes).expect("a command is encodable");
        }
        bytes
    }

    /// The beginning of a pack; so many commands, encoded by postcard, are to be appended to it.
    pub fn encode_header(origin: NodeId, epoch: Epoch, seq: u64, commands: u32) -> Vec<u8> {
        let header = Header { origin, epoch, seq, commands };
        // Appending to a `Vec` does not fail, and every field has a known length.
        postcard::to_extend(&header, vec![VERSION]).expect("a header is encodable")
    }

    /// Whose pack it is: origin, epoch and sequence. `None`: the bytes are no pack of this format.
    pub fn origin_of(bytes: &[u8]) -> Option<(NodeId, Epoch, u64)> {
        let (version, rest) = bytes.split_first()?;
        let (header, _): (Header, _) = postcard::take_from_bytes(rest).ok()?;
        (*version == VERSION).then_some((header.origin, header.epoch, header.seq))
    }

    /// # Errors
    /// The bytes are damaged, or of a newer format, or have a command that this build does not
    /// know: a node that meets one must stop, as skipping it would let its state diverge.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        let (version, rest) = bytes.split_first().ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        if *version != VERSION {
            return Err(PackError::Version(*version));
        }
        let (header, mut rest): (Header, _) = postcard::take_from_bytes(rest)?;
        // A command takes at least a byte: a damaged count must not reserve more than that.
        let mut commands = Vec::with_capacity((header.commands as usize).min(rest.len()).min(512));
        for _ in 0..header.commands {
            let (command, after) = Command::take(rest)?;
            commands.push(command);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(PackError::TrailingBytes(rest.len()));
        }
        Ok(Self { origin: header.origin, epoch: header.epoch, seq: header.seq, commands })
    }
}

impl Command {
    /// The command at the start of `bytes`, and what follows it.
    fn take(bytes: &[u8]) -> Result<(Self, &[u8]), PackError> {
        let (kind, _) = postcard::take_from_bytes::<u32>(bytes)?;
        if kind >= COMMAND_KINDS {
            return Err(PackError::UnknownCommand(kind));
        }
        Ok(postcard::take_from_bytes(bytes)?)
    }

    /// The one command that `bytes`, put together from [`Command::Part`]s, encode.
    ///
    /// # Errors
    /// See [`PackError`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        match Self::take(bytes)? {
            (Self::Part { .. }, _) => Err(PackError::NestedParts),
            (command, []) => Ok(command),
            (_, rest) => Err(PackError::TrailingBytes(rest.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack() -> Pack {
        let commands = vec![
            Command::Tick { elapsed_ms: 5 },
            Command::Sweep { clients: vec!["c".into()], routes: vec!["a/+".into()] },
        ];
        Pack { origin: 7, epoch: 3, seq: 9, commands }
    }

    #[test]
    fn a_pack_survives_encoding() {
        assert_eq!(Pack::decode(&pack().encode()), Ok(pack()));
        assert_eq!(Pack::origin_of(&pack().encode()), Some((7, 3, 9)));
    }

    #[test]
    fn the_last_kind_of_command_is_known() {
        let last = Command::Drain { node: 1, drain: None };
        let bytes = postcard::to_stdvec(&last).expect("encodable");
        assert_eq!(u32::from(bytes[0]) + 1, COMMAND_KINDS);
    }

    #[test]
    fn an_unknown_command_is_named() {
        let empty = Pack { commands: vec![], ..pack() };
        let mut bytes = empty.encode();
        *bytes.last_mut().expect("not empty") = 1;
        bytes.push(COMMAND_KINDS as u8 + 4);
        assert_eq!(Pack::decode(&bytes), Err(PackError::UnknownCommand(COMMAND_KINDS + 4)));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = pack().encode();
        bytes[0] = 2;
        assert_eq!(Pack::decode(&bytes), Err(PackError::Version(2)));
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let bytes = pack().encode();
        for cut in 0..bytes.len() {
            assert!(Pack::decode(&bytes[..cut]).is_err());
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(Pack::decode(&longer), Err(PackError::TrailingBytes(1)));
    }
}
