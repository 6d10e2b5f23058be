//! What a publish that goes through the log is acknowledged for.

/// How safe a message for persistent sessions is once its PUBACK or PUBREC is sent. What clean
/// sessions alone get is not stored anywhere, and acknowledged when their nodes have taken it over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// On the disks of a majority: it survives the loss of any minority, power included.
    #[default]
    Quorum,
    /// On one disk, that of the client's node: it is lost if that node dies, or power is lost, in
    /// the moment before the majority has it.
    Leader,
    /// Taken over by the client's node, on no disk yet: it is lost if that node dies in that moment.
    Memory,
}

impl Durability {
    /// As the configuration and CONNACK have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Leader => "leader",
            Self::Memory => "memory",
        }
    }
}
