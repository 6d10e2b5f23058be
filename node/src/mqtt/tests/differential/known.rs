//! Where mqtt-proto and Rookery disagree, whose fault it is, and which statement says so.

use crate::mqtt::Version;

/// How two decoders disagree about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Disagreement {
    /// Rookery refuses it, for this reason.
    OnlyWeRefuse(&'static str),
    /// mqtt-proto refuses it, for a reason that begins so.
    OnlyTheyRefuse(String),
    /// Both take it and read this differently.
    InField(&'static str),
}

/// Who is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Theirs,
    /// The standard leaves it open, or contradicts itself.
    Nobodys,
}

pub(super) struct Known {
    pub what: What,
    /// In which versions; `None`: in CONNECT.
    pub versions: &'static [Option<Version>],
    pub fault: Fault,
    /// By which statement.
    pub why: &'static str,
    /// Whether from a server, and a packet that shows it in the first of the versions.
    pub example: (bool, &'static [u8]),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    WeRefuse(&'static str),
    TheyRefuse(&'static str),
}

impl Known {
    pub fn explains(&self, found: &Disagreement, version: Option<Version>) -> bool {
        let same = match (self.what, found) {
            (What::WeRefuse(ours), Disagreement::OnlyWeRefuse(found)) => ours == *found,
            (What::TheyRefuse(theirs), Disagreement::OnlyTheyRefuse(found)) => found.starts_with(theirs),
            _ => false,
        };
        same && self.versions.contains(&version)
    }
}

const CONNECT: &[Option<Version>] = &[None];
const V31: &[Option<Version>] = &[Some(Version::V31)];
const V3: &[Option<Version>] = &[Some(Version::V311), Some(Version::V31)];
const V5: &[Option<Version>] = &[Some(Version::V5)];
const V5_OR_CONNECT: &[Option<Version>] = &[Some(Version::V5), None];
const ALL: &[Option<Version>] = &[Some(Version::V311), Some(Version::V31), Some(Version::V5), None];

use Fault::{Nobodys, Theirs};
use What::{TheyRefuse, WeRefuse};

pub(super) const KNOWN: &[Known] = &[
    Known {
        what: WeRefuse("a variable byte integer is not in its shortest form"),
        versions: ALL,
        fault: Theirs,
        why: "the encoded value MUST use the minimum number of bytes [MQTT-1.5.5-1]",
        example: (false, &[0x62, 0x82, 0x00, 0x00, 0x18]),
    },
    Known {
        what: WeRefuse("a string contains U+0000"),
        versions: ALL,
        fault: Theirs,
        why: "a string MUST NOT include U+0000 [MQTT-1.5.4-2]; mqtt-proto looks only in topics",
        example: (false, &[0x10, 0x0D, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, 0]),
    },
    Known {
        what: WeRefuse("a topic filter whose + does not fill its level"),
        versions: ALL,
        fault: Theirs,
        why: "it MUST occupy an entire level [MQTT-4.7.1-2]; mqtt-proto overlooks the last level",
        example: (false, &[0xA2, 6, 0, 1, 0, 2, b'+', b'a']),
    },
    Known {
        what: WeRefuse("an empty topic name"),
        versions: V3,
        fault: Theirs,
        why: "topic names MUST be at least one character long [MQTT-4.7.3-1]",
        example: (false, &[0x30, 2, 0, 0]),
    },
    Known {
        what: WeRefuse("a PUBLISH with neither a topic name nor a topic alias"),
        versions: V5,
        fault: Theirs,
        why: "it is a Protocol Error [section 3.3.2.1 of 5.0]",
        example: (false, &[0x30, 3, 0, 0, 0]),
    },
    Known {
        what: WeRefuse("an empty topic"),
        versions: CONNECT,
        fault: Theirs,
        why: "a will's topic name is a topic name [MQTT-4.7.3-1]",
        example: (false, &[0x10, 0x11, 0, 4, b'M', b'Q', b'T', b'T', 4, 6, 0, 0, 0, 1, b'c', 0, 0, 0, 0]),
    },
    Known {
        what: WeRefuse("an empty response topic"),
        versions: V5_OR_CONNECT,
        fault: Theirs,
        why: "a response topic is a topic name [MQTT-4.7.3-1]",
        example: (false, &[0x30, 7, 0, 1, b'a', 3, 0x08, 0, 0]),
    },
    Known {
        what: WeRefuse("a PUBLISH with QoS 0 and DUP"),
        versions: ALL,
        fault: Theirs,
        why: "DUP MUST be 0 for all QoS 0 messages [MQTT-3.3.1-2]",
        example: (false, &[0x38, 4, 0, 1, b'a', b'x']),
    },
    Known {
        what: WeRefuse("will QoS or will retain without a will"),
        versions: CONNECT,
        fault: Theirs,
        why: "will retain MUST be 0 without a will [MQTT-3.1.2-13]; mqtt-proto checks the QoS alone",
        example: (false, &[0x10, 0x0D, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x22, 0, 0, 0, 1, b'c']),
    },
    Known {
        what: WeRefuse("a password without a user name"),
        versions: CONNECT,
        fault: Theirs,
        why: "the password flag MUST be 0 without a user name [MQTT-3.1.2-22] of 3.1.1",
        example: (false, &[0x10, 0x10, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x42, 0, 0, 0, 1, b'c', 0, 1, b'p']),
    },
    Known {
        what: WeRefuse("receive maximum 0"),
        versions: CONNECT,
        fault: Theirs,
        why: "it is a Protocol Error [section 3.1.2.11.3 of 5.0]",
        example: (false, &[0x10, 0x11, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 3, 0x21, 0, 0, 0, 1, b'c']),
    },
    Known {
        what: WeRefuse("receive maximum 0"),
        versions: V5,
        fault: Theirs,
        why: "it is a Protocol Error [section 3.2.2.3.3 of 5.0]",
        example: (true, &[0x20, 6, 0, 0, 3, 0x21, 0, 0]),
    },
    Known {
        what: WeRefuse("maximum packet size 0"),
        versions: V5_OR_CONNECT,
        fault: Theirs,
        why: "it is a Protocol Error [sections 3.1.2.11.4 and 3.2.2.3.6 of 5.0]",
        example: (true, &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 0]),
    },
    Known {
        what: WeRefuse("authentication data without authentication method"),
        versions: V5_OR_CONNECT,
        fault: Theirs,
        why: "it is a Protocol Error [sections 3.1.2.11.10 and 3.2.2.3.18 of 5.0]",
        example: (true, &[0x20, 7, 0, 0, 4, 0x16, 0, 1, b'a']),
    },
    Known {
        what: WeRefuse("an AUTH without authentication method"),
        versions: V5,
        fault: Theirs,
        why: "it is a Protocol Error [section 3.15.2.2.2 of 5.0]",
        example: (false, &[0xF0, 2, 0x18, 0]),
    },
    Known {
        what: WeRefuse("topic alias 0"),
        versions: V5,
        fault: Theirs,
        why: "a sender MUST NOT send it [MQTT-3.3.2-8]",
        example: (false, &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 0]),
    },
    Known {
        what: WeRefuse("subscription identifier 0"),
        versions: V5,
        fault: Theirs,
        why: "it is a Protocol Error [section 3.8.2.1.2 of 5.0]",
        example: (false, &[0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b'a', 0]),
    },
    Known {
        what: WeRefuse("a subscription identifier in a client's PUBLISH"),
        versions: V5,
        fault: Theirs,
        why: "a client MUST NOT send one [MQTT-3.3.4-6]; mqtt-proto does not know who sent it",
        example: (false, &[0x30, 6, 0, 1, b'a', 2, 0x0B, 1]),
    },
    Known {
        what: WeRefuse("no local on a shared subscription"),
        versions: V5,
        fault: Theirs,
        why: "it is a Protocol Error [MQTT-3.8.3-4]",
        example: (
            false,
            &[0x82, 0x10, 0, 1, 0, 0, 10, b'$', b's', b'h', b'a', b'r', b'e', b'/', b'g', b'/', b'a', 4],
        ),
    },
    Known {
        what: WeRefuse("a property that is unknown or not allowed in this packet"),
        versions: V5,
        fault: Theirs,
        why: "a server MUST NOT send a session expiry in DISCONNECT [MQTT-3.14.2-2], nor a client a \
              server reference; mqtt-proto does not know who sent it",
        example: (true, &[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 1]),
    },
    Known {
        what: WeRefuse("a reason code that this packet cannot carry"),
        versions: V5,
        fault: Theirs,
        why: "AUTH and DISCONNECT have codes for one side only [MQTT-3.14.2-1], [MQTT-3.15.2-1]; mqtt-proto \
              does not know who sent it",
        example: (false, &[0xF0, 0]),
    },
    Known {
        what: WeRefuse("an acknowledgement without reason codes"),
        versions: &[Some(Version::V311), Some(Version::V31), Some(Version::V5)],
        fault: Theirs,
        why: "there MUST be one for each filter [MQTT-3.9.3-1], and there is at least one filter",
        example: (true, &[0x90, 2, 0x6F, 0x71]),
    },
    Known {
        what: WeRefuse("a refusing CONNACK with session present"),
        versions: &[Some(Version::V311), Some(Version::V5)],
        fault: Theirs,
        why: "session present MUST be 0 with a code other than 0 [MQTT-3.2.2-6]",
        example: (true, &[0x20, 2, 1, 5]),
    },
    Known {
        what: WeRefuse("reserved connect acknowledge flags are set"),
        versions: V31,
        fault: Theirs,
        why: "in 3.1 the whole byte is reserved",
        example: (true, &[0x20, 2, 1, 0]),
    },
    Known {
        what: TheyRefuse("duplicated property: `SubscriptionIdentifier`"),
        versions: V5,
        fault: Theirs,
        why: "a PUBLISH has one for each subscription that it is sent for [section 3.3.2.3.8 of 5.0]",
        example: (true, &[0x30, 8, 0, 1, b'a', 4, 0x0B, 1, 0x0B, 2]),
    },
    Known {
        what: TheyRefuse("invalid header"),
        versions: V31,
        fault: Theirs,
        why: "3.1 sends PUBREL, SUBSCRIBE and UNSUBSCRIBE again with DUP [section 2.1 of 3.1]; mqtt-proto \
              has the rules of 3.1.1",
        example: (false, &[0x6A, 2, 0x65, 0xD0]),
    },
    Known {
        what: TheyRefuse("common error of v3/v5: invalid protocol: MQTT, 132"),
        versions: CONNECT,
        fault: Nobodys,
        why: "the standard has no such level: bridges of mosquitto's kind announce themselves by it",
        example: (false, &[0x10, 0x0D, 0, 4, b'M', b'Q', b'T', b'T', 0x84, 2, 0, 0, 0, 1, b'c']),
    },
    Known {
        what: TheyRefuse("common error of v3/v5: invalid protocol: MQIsdp, 131"),
        versions: CONNECT,
        fault: Nobodys,
        why: "as in 3.1.1",
        example: (false, &[0x10, 0x0F, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 0x83, 2, 0, 0, 0, 1, b'c']),
    },
    Known {
        what: TheyRefuse("invalid payload format, utf8 expected"),
        versions: V5_OR_CONNECT,
        fault: Nobodys,
        why: "a receiver MAY validate the payload [section 3.3.2.3.2 of 5.0]; the broker leaves it to the \
              subscriber",
        example: (false, &[0x30, 7, 0, 1, b'a', 2, 0x01, 1, 0xFF]),
    },
    Known {
        what: TheyRefuse("invalid reason code `140` for packet `Disconnect`"),
        versions: V5,
        fault: Nobodys,
        why: "section 2.4 of 5.0 lists 0x8C for DISCONNECT, section 3.14.2.1 does not",
        example: (true, &[0xE0, 1, 0x8C]),
    },
];

/// Good packets that mqtt-proto's encoder spoils.
pub(super) struct WrittenWrongly {
    pub versions: &'static [Option<Version>],
    pub spoils: fn(&[u8]) -> bool,
    pub why: &'static str,
}

pub(super) const WRITTEN_WRONGLY: &[WrittenWrongly] = &[WrittenWrongly {
    versions: V3,
    spoils: |packet| packet[0] == 0x90 && packet[4..].contains(&0x80),
    why: "a SUBACK's failure is 0x80 [section 3.9.3 of 3.1.1]; mqtt-proto writes its variant's number",
}];
