//! What the kernel knows about a connection: `struct tcp_info` of linux/tcp.h, parsed from its bytes.
//!
//! Pure. The structure has only ever grown at its end, so a field that the running kernel is too old to have is
//! `None`, and a field that it has and we do not know is passed over.

/// The state of one TCP connection, as the kernel sees it at one moment (tcp(7), `TCP_INFO`).
///
/// With the feature `serde` it can be serialized, its fields under their own names.
///
/// Units are in the names: `_us` microseconds, `_ms` milliseconds; counts are since the connection began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TcpInfo {
    /// The state of RFC 9293, section 3.3.2.
    pub state: Option<TcpState>,
    /// Retransmissions of the segment that is not acknowledged now; 0 when all goes well.
    pub retransmits: Option<u8>,
    /// Zero-window or keepalive probes sent and not answered.
    pub probes: Option<u8>,
    /// How often the retransmission timer has doubled.
    pub backoff: Option<u8>,
    /// Retransmission timeout.
    pub rto_us: Option<u32>,
    /// Largest segment we send, in bytes.
    pub snd_mss_bytes: Option<u32>,
    /// Largest segment seen from the peer, in bytes.
    pub rcv_mss_bytes: Option<u32>,
    /// Segments sent and not acknowledged.
    pub unacked: Option<u32>,
    /// Segments held to be lost.
    pub lost: Option<u32>,
    /// Time since we last sent data.
    pub last_data_sent_ms: Option<u32>,
    /// Time since data last came.
    pub last_data_recv_ms: Option<u32>,
    /// Time since an acknowledgement last came.
    pub last_ack_recv_ms: Option<u32>,
    /// Path MTU in bytes.
    pub pmtu_bytes: Option<u32>,
    /// Smoothed round-trip time (RFC 6298).
    pub rtt_us: Option<u32>,
    /// Its mean deviation.
    pub rttvar_us: Option<u32>,
    /// Slow-start threshold, in segments; a huge number means that none is set yet.
    pub snd_ssthresh: Option<u32>,
    /// Congestion window, in segments.
    pub snd_cwnd: Option<u32>,
    /// Segments out of order before one is held to be lost.
    pub reordering: Option<u32>,
    /// The receiver's own estimate of the round-trip time.
    pub rcv_rtt_us: Option<u32>,
    /// Receive buffer that the kernel tunes to, in bytes.
    pub rcv_space_bytes: Option<u32>,
    /// Segments retransmitted.
    pub total_retrans: Option<u32>,
    /// The rate that sending is paced to.
    pub pacing_rate_bytes_per_s: Option<u64>,
    /// Bytes that the peer acknowledged.
    pub bytes_acked: Option<u64>,
    /// Bytes that the peer sent and we acknowledged.
    pub bytes_received: Option<u64>,
    /// Segments sent, with and without data.
    pub segs_out: Option<u32>,
    /// Segments received, with and without data.
    pub segs_in: Option<u32>,
    /// Bytes written by the program and not yet sent once.
    pub notsent_bytes: Option<u32>,
    /// The smallest round-trip time seen lately; a huge number means none yet.
    pub min_rtt_us: Option<u32>,
    /// Segments with data received.
    pub data_segs_in: Option<u32>,
    /// Segments with data sent.
    pub data_segs_out: Option<u32>,
    /// The rate at which data was acknowledged lately.
    pub delivery_rate_bytes_per_s: Option<u64>,
    /// Time with data outstanding.
    pub busy_us: Option<u64>,
    /// Time stalled because the peer's receive window was full.
    pub rwnd_limited_us: Option<u64>,
    /// Time stalled because our send buffer was too small.
    pub sndbuf_limited_us: Option<u64>,
    /// Bytes sent, retransmissions included.
    pub bytes_sent: Option<u64>,
    /// Bytes sent again.
    pub bytes_retrans: Option<u64>,
    /// Duplicate segments that the peer reported (RFC 2883): retransmissions that were not needed.
    pub dsack_dups: Option<u32>,
    /// Times that reordering was seen.
    pub reord_seen: Option<u32>,
    /// Segments received out of order.
    pub rcv_ooopack: Option<u32>,
    /// The peer's receive window, in bytes.
    pub snd_wnd_bytes: Option<u32>,
}

impl TcpInfo {
    /// Parses what `getsockopt(TCP_INFO)` gave. Never fails: what `bytes` is too short for is `None`.
    pub fn parse(bytes: &[u8]) -> Self {
        Self {
            state: byte(bytes, 0).map(TcpState::from_kernel),
            retransmits: byte(bytes, 2),
            probes: byte(bytes, 3),
            backoff: byte(bytes, 4),
            rto_us: word(bytes, 8),
            snd_mss_bytes: word(bytes, 16),
            rcv_mss_bytes: word(bytes, 20),
            unacked: word(bytes, 24),
            lost: word(bytes, 32),
            last_data_sent_ms: word(bytes, 44),
            last_data_recv_ms: word(bytes, 52),
            last_ack_recv_ms: word(bytes, 56),
            pmtu_bytes: word(bytes, 60),
            rtt_us: word(bytes, 68),
            rttvar_us: word(bytes, 72),
            snd_ssthresh: word(bytes, 76),
            snd_cwnd: word(bytes, 80),
            reordering: word(bytes, 88),
            rcv_rtt_us: word(bytes, 92),
            rcv_space_bytes: word(bytes, 96),
            total_retrans: word(bytes, 100),
            pacing_rate_bytes_per_s: long(bytes, 104),
            bytes_acked: long(bytes, 120),
            bytes_received: long(bytes, 128),
            segs_out: word(bytes, 136),
            segs_in: word(bytes, 140),
            notsent_bytes: word(bytes, 144),
            min_rtt_us: word(bytes, 148),
            data_segs_in: word(bytes, 152),
            data_segs_out: word(bytes, 156),
            delivery_rate_bytes_per_s: long(bytes, 160),
            busy_us: long(bytes, 168),
            rwnd_limited_us: long(bytes, 176),
            sndbuf_limited_us: long(bytes, 184),
            bytes_sent: long(bytes, 200),
            bytes_retrans: long(bytes, 208),
            dsack_dups: word(bytes, 216),
            reord_seen: word(bytes, 220),
            rcv_ooopack: word(bytes, 224),
            snd_wnd_bytes: word(bytes, 228),
        }
    }
}

/// A connection's state (RFC 9293, section 3.3.2; numbers as in the kernel's tcp_states.h).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are those of RFC 9293")]
pub enum TcpState {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Closed,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    /// A number that this version does not know.
    Unknown(u8),
}

impl TcpState {
    fn from_kernel(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            // 12 is NEW_SYN_RECV, the kernel's own split of the same state.
            3 | 12 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Closed,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            other => Self::Unknown(other),
        }
    }

    /// The name as `ss` prints it, in lower case with hyphens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::FinWait1 => "fin-wait-1",
            Self::FinWait2 => "fin-wait-2",
            Self::TimeWait => "time-wait",
            Self::Closed => "closed",
            Self::CloseWait => "close-wait",
            Self::LastAck => "last-ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Its name, as [`TcpState::as_str`].
#[cfg(feature = "serde")]
impl serde::Serialize for TcpState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn byte(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(field.try_into().ok()?))
}

fn long(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..offset + 8)?;
    Some(u64::from_ne_bytes(field.try_into().ok()?))
}

/// Room for the structure of kernels to come; 6.18 fills 264 bytes.
pub(crate) const TCP_INFO_BYTES_MAX: usize = 512;
