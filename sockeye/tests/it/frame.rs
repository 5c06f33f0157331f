use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use sockeye::frame::{Delimited, FrameError, LengthPrefixed, Lines, Prefix};
use tokio_util::codec::{Decoder, Encoder};

/// The frames of a stream that arrives in these pieces, and how it ended.
fn decode<D>(mut codec: D, pieces: &[&[u8]]) -> (Vec<Bytes>, Result<(), String>)
where
    D: Decoder<Item = Bytes, Error = FrameError>,
{
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error.to_string())),
            }
        }
    }
    loop {
        match codec.decode_eof(&mut buffer) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, Ok(())),
            Err(error) => return (frames, Err(error.to_string())),
        }
    }
}

/// Every way of cutting the stream in two, one byte at a time, and the whole at once: one result.
fn same_for_all_cuts<D>(codec: &D, stream: &[u8]) -> Result<(), TestCaseError>
where
    D: Decoder<Item = Bytes, Error = FrameError> + Clone,
{
    let whole = decode(codec.clone(), &[stream]);
    for at in 0..=stream.len() {
        let (head, tail) = stream.split_at(at);
        prop_assert_eq!(
            &decode(codec.clone(), &[head, tail]),
            &whole,
            "cut at {}",
            at
        );
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    prop_assert_eq!(&decode(codec.clone(), &bytes), &whole, "byte by byte");
    Ok(())
}

fn encode<C>(mut codec: C, frames: &[&[u8]]) -> Result<BytesMut, FrameError>
where
    C: for<'a> Encoder<&'a [u8], Error = FrameError>,
{
    let mut stream = BytesMut::new();
    for frame in frames {
        codec.encode(frame, &mut stream)?;
    }
    Ok(stream)
}

fn few_bytes() -> impl Strategy<Value = Vec<u8>> {
    // Of few kinds, so that delimiters and their beginnings are common.
    prop::collection::vec(prop::sample::select(&b"ab\r\n"[..]), 0..40)
}

proptest! {
    #[test]
    fn lines_are_the_same_for_every_cut(stream in few_bytes(), max in 0_usize..12) {
        same_for_all_cuts(&Lines::new(max), &stream)?;
    }

    #[test]
    fn delimited_frames_are_the_same_for_every_cut(stream in few_bytes(), max in 0_usize..12) {
        same_for_all_cuts(&Delimited::new(&b"\r\n"[..], max), &stream)?;
        same_for_all_cuts(&Delimited::new(&b"aab"[..], max), &stream)?;
    }

    #[test]
    fn length_prefixed_frames_are_the_same_for_every_cut(
        stream in prop::collection::vec(0_u8..4, 0..40),
        max in 0_usize..8,
    ) {
        for prefix in [Prefix::U8, Prefix::U16, Prefix::U32] {
            same_for_all_cuts(&LengthPrefixed::new(prefix, max), &stream)?;
        }
    }

    /// Against the standard library, which has the same idea of lines (and of UTF-8, which these bytes are).
    #[test]
    fn lines_are_those_of_the_standard_library(stream in few_bytes()) {
        let text = std::str::from_utf8(&stream).expect("ASCII");
        let expected: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
        let (lines, end) = decode(Lines::default(), &[&stream]);
        prop_assert_eq!(lines, expected);
        prop_assert_eq!(end, Ok(()));
    }

    #[test]
    fn what_is_encoded_is_decoded(frames in prop::collection::vec(few_bytes(), 0..6)) {
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let codec = LengthPrefixed::new(Prefix::U16, 100);
        let stream = encode(codec.clone(), &frames).expect("short");
        prop_assert_eq!(decode(codec, &[&stream]).0, frames.clone());

        let codec = Delimited::new(&b"aab"[..], 100);
        if let Ok(stream) = encode(codec.clone(), &frames) {
            prop_assert_eq!(decode(codec, &[&stream]).0, frames.clone());
        }
        for codec in [Lines::default(), Lines::default().with_crlf()] {
            if let Ok(stream) = encode(codec.clone(), &frames) {
                prop_assert_eq!(decode(codec, &[&stream]).0, frames.clone());
            }
        }
    }
}

#[test]
fn a_frame_of_exactly_the_maximum_passes_and_one_byte_more_does_not() {
    let (lines, end) = decode(Lines::new(4), &[b"1234\n1234\r\n1234"]);
    assert_eq!((lines.len(), end), (3, Ok(())));
    for stream in [&b"12345\n"[..], b"12345\r\n", b"12345", b"1234\r"] {
        let (lines, end) = decode(Lines::new(4), &[stream]);
        assert_eq!(lines.len(), 0);
        assert_eq!(end, Err("a frame of more than 4 bytes".to_owned()));
    }
}

#[test]
fn a_length_over_the_maximum_is_refused_before_memory_is_set_aside() {
    let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
    let before = buffer.capacity();
    let error = LengthPrefixed::new(Prefix::U32, 1 << 20)
        .decode(&mut buffer)
        .expect_err("too long");
    assert!(matches!(
        error,
        FrameError::TooLong {
            max_bytes: 0x10_0000
        }
    ));
    assert_eq!(buffer.capacity(), before);
}

#[test]
fn a_line_without_end_is_refused_while_it_comes() {
    let mut codec = Lines::new(100);
    let mut buffer = BytesMut::new();
    for held in 1.. {
        buffer.extend_from_slice(b"x");
        if codec.decode(&mut buffer).is_err() {
            assert_eq!(
                held, 102,
                "the maximum, and one that could have been the CR"
            );
            break;
        }
    }
}

#[test]
fn a_stream_that_ends_inside_a_length_prefixed_frame_is_truncated() {
    let truncated = Err("the stream ended inside a frame".to_owned());
    for stream in [&[0_u8][..], &[0, 2, b'x'][..]] {
        let (_, end) = decode(LengthPrefixed::new(Prefix::U16, 10), &[stream]);
        assert_eq!(end, truncated);
    }
}

#[test]
fn a_frame_that_holds_its_delimiter_is_not_written() {
    let refused = |stream: Result<BytesMut, FrameError>| {
        assert!(matches!(stream, Err(FrameError::HoldsDelimiter)));
    };
    refused(encode(Lines::default(), &[b"two\nlines"]));
    refused(encode(Lines::default(), &[b"line\r"]));
    refused(encode(Delimited::new(&b"--"[..], 10), &[b"a--b"]));
    refused(encode(Delimited::new(&b"--"[..], 10), &[b"a-"]));
    let long = encode(Lines::new(3), &[b"1234"]);
    assert!(matches!(long, Err(FrameError::TooLong { max_bytes: 3 })));
    let long = encode(LengthPrefixed::new(Prefix::U8, 1_000), &[&[0; 256]]);
    assert!(matches!(long, Err(FrameError::TooLong { max_bytes: 255 })));
}
