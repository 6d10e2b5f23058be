//! Reason codes of MQTT 5.0 and what becomes of them in 3.x.

use std::fmt;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $variant:ident = $value:literal, $name:literal;)*) => {
        /// A reason code of MQTT 5.0 [section 2.4]. 0x00 has several names in the standard
        /// (Success, Normal disconnection, Granted QoS 0); here it is `Success`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ReasonCode {
            #[default]
            $($(#[$doc])* $variant = $value,)*
        }

        impl ReasonCode {
            /// Every defined code, ascending.
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode::$variant,)*];

            /// The code with this value; `None` if the standard does not define it.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(ReasonCode::$variant),)*
                    _ => None,
                }
            }

            /// The standard's name of the code.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ReasonCode::$variant => $name,)*
                }
            }
        }
    };
}

reason_codes! {
    Success = 0x00, "Success";
    GrantedQoS1 = 0x01, "Granted QoS 1";
    GrantedQoS2 = 0x02, "Granted QoS 2";
    DisconnectWithWill = 0x04, "Disconnect with Will Message";
    NoMatchingSubscribers = 0x10, "No matching subscribers";
    NoSubscriptionExisted = 0x11, "No subscription existed";
    ContinueAuthentication = 0x18, "Continue authentication";
    ReAuthenticate = 0x19, "Re-authenticate";
    UnspecifiedError = 0x80, "Unspecified error";
    MalformedPacket = 0x81, "Malformed Packet";
    ProtocolError = 0x82, "Protocol Error";
    ImplementationSpecificError = 0x83, "Implementation specific error";
    UnsupportedProtocolVersion = 0x84, "Unsupported Protocol Version";
    ClientIdentifierNotValid = 0x85, "Client Identifier not valid";
    BadUserNameOrPassword = 0x86, "Bad User Name or Password";
    NotAuthorized = 0x87, "Not authorized";
    ServerUnavailable = 0x88, "Server unavailable";
    ServerBusy = 0x89, "Server busy";
    Banned = 0x8A, "Banned";
    ServerShuttingDown = 0x8B, "Server shutting down";
    BadAuthenticationMethod = 0x8C, "Bad authentication method";
    KeepAliveTimeout = 0x8D, "Keep Alive timeout";
    SessionTakenOver = 0x8E, "Session taken over";
    TopicFilterInvalid = 0x8F, "Topic Filter invalid";
    TopicNameInvalid = 0x90, "Topic Name invalid";
    PacketIdentifierInUse = 0x91, "Packet Identifier in use";
    PacketIdentifierNotFound = 0x92, "Packet Identifier not found";
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded";
    TopicAliasInvalid = 0x94, "Topic Alias invalid";
    PacketTooLarge = 0x95, "Packet too large";
    MessageRateTooHigh = 0x96, "Message rate too high";
    QuotaExceeded = 0x97, "Quota exceeded";
    AdministrativeAction = 0x98, "Administrative action";
    PayloadFormatInvalid = 0x99, "Payload format invalid";
    RetainNotSupported = 0x9A, "Retain not supported";
    QoSNotSupported = 0x9B, "QoS not supported";
    UseAnotherServer = 0x9C, "Use another server";
    ServerMoved = 0x9D, "Server moved";
    SharedSubscriptionsNotSupported = 0x9E, "Shared Subscriptions not supported";
    ConnectionRateExceeded = 0x9F, "Connection rate exceeded";
    MaximumConnectTime = 0xA0, "Maximum connect time";
    SubscriptionIdentifiersNotSupported = 0xA1, "Subscription Identifiers not supported";
    WildcardSubscriptionsNotSupported = 0xA2, "Wildcard Subscriptions not supported";
}

/// The packets that carry reason codes, told apart by who sent them where the standard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeUse {
    ConnAck,
    /// PUBACK and PUBREC.
    FirstAck,
    /// PUBREL and PUBCOMP.
    SecondAck,
    SubAck,
    UnsubAck,
    DisconnectByClient,
    DisconnectByServer,
    AuthByClient,
    AuthByServer,
}

impl ReasonCode {
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// 0x80 and above: a failure, after which CONNACK and DISCONNECT close [MQTT-4.13.2-1].
    #[inline]
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The SUBACK code that grants `qos`.
    pub const fn granted(qos: super::QoS) -> Self {
        match qos {
            super::QoS::AtMostOnce => ReasonCode::Success,
            super::QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            super::QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        }
    }

    /// The CONNACK return code of 3.1 and 3.1.1 that says the same. `None`: those versions have
    /// no fitting code and the connection is closed without CONNACK ([MQTT-3.2.2-6] of 3.1.1).
    pub const fn connect_return_code(self) -> Option<u8> {
        use ReasonCode::*;
        Some(match self {
            Success => 0,
            UnsupportedProtocolVersion => 1,
            ClientIdentifierNotValid => 2,
            UnspecifiedError
            | ImplementationSpecificError
            | ServerUnavailable
            | ServerBusy
            | ServerShuttingDown
            | QuotaExceeded
            | UseAnotherServer
            | ServerMoved
            | ConnectionRateExceeded => 3,
            BadUserNameOrPassword => 4,
            NotAuthorized | Banned | BadAuthenticationMethod => 5,
            _ => return None,
        })
    }

    /// The 5.0 code for a CONNACK return code of 3.x; `None` for a value above 5.
    pub const fn from_connect_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => ReasonCode::Success,
            1 => ReasonCode::UnsupportedProtocolVersion,
            2 => ReasonCode::ClientIdentifierNotValid,
            3 => ReasonCode::ServerUnavailable,
            4 => ReasonCode::BadUserNameOrPassword,
            5 => ReasonCode::NotAuthorized,
            _ => return None,
        })
    }

    /// The SUBACK return code of 3.x: the granted QoS or 0x80 ([MQTT-3.9.3-2] of 3.1.1).
    pub const fn subscribe_return_code(self) -> u8 {
        if self.is_error() { 0x80 } else { self as u8 }
    }

    /// Whether the standard lists the code for that packet.
    pub(super) const fn is_defined_for(self, packet: CodeUse) -> bool {
        let value = self as u8;
        match packet {
            CodeUse::ConnAck => matches!(
                value,
                0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99 | 0x9A..=0x9D | 0x9F
            ),
            // 0x10 is a server's to send; a bridge is one too, while it acts as a client.
            CodeUse::FirstAck => {
                matches!(value, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            CodeUse::SecondAck => matches!(value, 0x00 | 0x92),
            CodeUse::SubAck => {
                matches!(value, 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
            }
            CodeUse::UnsubAck => matches!(value, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
            CodeUse::DisconnectByClient => {
                matches!(value, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
            }
            CodeUse::DisconnectByServer => {
                matches!(value, 0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2)
            }
            CodeUse::AuthByClient => matches!(value, 0x18 | 0x19),
            CodeUse::AuthByServer => matches!(value, 0x00 | 0x18),
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.name(), self.as_u8())
    }
}

impl From<ReasonCode> for u8 {
    fn from(code: ReasonCode) -> u8 {
        code as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_and_are_ascending() {
        let defined: Vec<u8> = (0..=255).filter(|v| ReasonCode::from_u8(*v).is_some()).collect();
        let listed: Vec<u8> = ReasonCode::ALL.iter().map(|c| c.as_u8()).collect();
        assert_eq!(defined, listed);
        for code in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_u8(code.as_u8()), Some(*code));
        }
    }

    #[test]
    fn return_codes_of_3_x_round_trip() {
        for code in 0..=5 {
            let reason = ReasonCode::from_connect_return_code(code).unwrap();
            assert_eq!(reason.connect_return_code(), Some(code));
        }
        assert_eq!(ReasonCode::from_connect_return_code(6), None);
        assert_eq!(ReasonCode::MalformedPacket.connect_return_code(), None);
        assert_eq!(ReasonCode::QuotaExceeded.subscribe_return_code(), 0x80);
        assert_eq!(ReasonCode::GrantedQoS2.subscribe_return_code(), 2);
    }
}
