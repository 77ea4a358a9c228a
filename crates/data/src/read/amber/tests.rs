//! Damaged and foreign files of molecules.

use super::*;

const PARAMETERS: &str = include_str!("../../../assets/alanine/alanine-dipeptide.prmtop");
const COORDINATES: &str = include_str!("../../../assets/alanine/alanine-dipeptide.crd");

fn message(text: &str) -> String {
    parse_prmtop(text, Path::new("m.prmtop")).err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn errors_name_line_and_field() {
    for (from, to, expected) in [
        (
            "      22       7",
            "      22       8",
            "m.prmtop, line 39: expected 64 fields in NONBONDED_PARM_INDEX, found 49",
        ),
        ("      22       7", "      99       7", "99 fields in CHARGE, found 22"),
        (
            "      22       7",
            "-9999999       7",
            "m.prmtop, line 5: expected a count from 1 to 2000 as field 0 in POINTERS",
        ),
        (
            "2.04636429E+00 -6.6",
            "           NaN -6.6",
            "line 17: expected a finite number as field 0 of CHARGE, found \"             NaN\"",
        ),
        ("%FLAG MASS", "%FLAG CHARGE", "each section once, found \"CHARGE\" again"),
        ("%FLAG MASS", "%FLAG OTHER", "m.prmtop, \"MASS\": expected this section, found none"),
        ("%FORMAT(20a4) ", "%FORMAT(20a0) ", "line 3: expected a format such as (10I8)"),
        (
            "       3       6       3 ",
            "       4       6       3 ",
            "three times an atom's number below 22 in BONDS_INC_HYDROGEN, found 4",
        ),
        (
            "       3       6       3 ",
            "       6       6       3 ",
            "a bond: expected different atoms below 22, found [2, 2]",
        ),
        (
            "       3       6       3 ",
            "       3       6      33 ",
            "an index from 1 to 8 in BONDS_INC_HYDROGEN, found 33",
        ),
        ("%FLAG RADIUS_SET", "%FLAG CMAP_COUNT", "no terms but those of AMBER's fixed charges in CMAP_COUNT"),
        ("%FLAG SOLTY", "%FLAG CHARMM_NUM_IMPROPERS", "line 87: expected no terms but those of AMBER's"),
        (
            "      10       0\n       0\n",
            "      10       0\n       1\n",
            "line 5: expected no extra points (NUMEXTRA 0) in POINTERS, found 1",
        ),
        ("%FLAG RADIUS_SET", "%FLAG CTITLE", "no terms but those of AMBER's fixed charges in CTITLE"),
    ] {
        assert!(PARAMETERS.contains(from), "{from:?}");
        let found = message(&PARAMETERS.replacen(from, to, 1));
        assert!(found.contains(expected), "{from:?} to {to:?}: {found}");
    }
}

#[test]
fn no_prefix_and_no_flipped_byte_panics() {
    let whole = parse_prmtop(PARAMETERS, Path::new("m"));
    assert!(whole.is_ok());
    for end in (0..PARAMETERS.trim_end().len()).step_by(97).chain([PARAMETERS.trim_end().len() - 1]) {
        assert!(parse_prmtop(&PARAMETERS[..end], Path::new("m")).is_err(), "cut at {end}");
    }
    let mut draws = sde_core::noise::Noise::new(3).draws(sde_core::noise::Stream::User, 0, 0);
    for _ in 0..300 {
        let mut bytes = PARAMETERS.as_bytes().to_vec();
        let at = draws.below(bytes.len() as u64) as usize;
        bytes[at] = draws.below(128) as u8;
        // Whatever comes out, it is no panic, and what is accepted is finite.
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(found) = parse_prmtop(&text, Path::new("m"))
        {
            assert_eq!(found.force_field.atoms(), 22);
        }
    }
}

#[test]
fn coordinates_are_counted() {
    let parse = |text: &str| parse_inpcrd(text, Path::new("c")).map_err(|e| e.to_string());
    assert_eq!(parse(COORDINATES).map(|places| (places.len(), places[0])), Ok((66, 2.000_001 * 0.1)));
    for (text, expected) in [
        ("", "c, line 2: expected the number of atoms"),
        ("ACE\n1000000000000000000000\n", "c, line 2: expected the number of atoms"),
        (
            "ACE\n2\n   2.0000010   1.0000000  -0.0000013\n",
            "c: expected 3 coordinates for each of 2 atoms and nothing else",
        ),
        (
            "ACE\n1\n   2.0000010   1.00x0000  -0.0000013\n",
            "c, line 3: expected finite numbers, 12 columns each, found",
        ),
        ("ACE\n1\n   2.0000010   1.0000000         inf\n", "c, line 3"),
    ] {
        let found = parse(text).err().unwrap_or_default();
        assert!(found.starts_with(expected), "{text:?}: {found}");
    }
}
