//! `--crlf`: line ends as the protocols of the Internet want them.

/// Makes each LF a CRLF, and leaves those be that are one already, wherever the stream is cut.
#[derive(Debug, Default)]
pub(crate) struct Crlf {
    after_cr: bool,
}

impl Crlf {
    pub(crate) fn convert(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut converted = Vec::with_capacity(bytes.len() + bytes.len() / 16);
        for &byte in bytes {
            if byte == b'\n' && !self.after_cr {
                converted.push(b'\r');
            }
            converted.push(byte);
            self.after_cr = byte == b'\r';
        }
        converted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &[u8]) -> Vec<u8> {
        Crlf::default().convert(text)
    }

    #[test]
    fn lf_becomes_crlf_and_crlf_stays() {
        assert_eq!(whole(b"a\nb\r\n\nc\r"), b"a\r\nb\r\n\r\nc\r");
    }

    proptest! {
        #[test]
        fn every_cut_gives_the_same(
            text in prop::collection::vec(prop::sample::select(&b"a\r\n"[..]), 0..30),
            cut in any::<prop::sample::Index>(),
        ) {
            let (head, tail) = text.split_at(cut.index(text.len() + 1));
            let mut crlf = Crlf::default();
            let pieces = [crlf.convert(head), crlf.convert(tail)].concat();
            prop_assert_eq!(pieces, whole(&text));
        }
    }
}
