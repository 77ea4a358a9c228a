//! `.pth` files: those that PyTorch wrote come out as they were; those that are cut, lie or would run something are
//! errors, and nothing else.

use std::io::{Cursor, Write};

use candle_core::{DType, Device, Tensor};
use sde_nets::pretrained::pickle::{Value, read_pth};
use sde_nets::{Error, Result};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const ARCHIVE: &[u8] = include_bytes!("fixtures/torch.pth");
const LEGACY: &[u8] = include_bytes!("fixtures/torch-legacy.pth");
const SCRIPT: &[u8] = include_bytes!("fixtures/torchscript.pt");

fn floats(values: &[f64], shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, shape, &Device::Cpu)?)
}

fn equal(a: &Tensor, b: &Tensor) -> Result<bool> {
    let values = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    Ok(a.dims() == b.dims() && values(a)? == values(b)?)
}

#[test]
fn what_torch_wrote_comes_out_in_both_layouts() -> Result<()> {
    let base = floats(&(0..24).map(|i| f64::from(i) / 8.0).collect::<Vec<_>>(), &[2, 3, 4])?;
    for file in [ARCHIVE, LEGACY] {
        let checkpoint = read_pth(file.to_vec())?;
        let model = checkpoint.get("model").unwrap().to_weights()?;
        let expected = [
            ("weight", base.clone(), DType::F32),
            ("transposed", base.permute((2, 0, 1))?.contiguous()?, DType::F32),
            ("slice", floats(&[1.625, 1.875, 2.125, 2.375, 2.625, 2.875], &[3, 2])?, DType::F32),
            ("scalar", floats(&[0.5], &[])?, DType::F64),
            ("empty", floats(&[], &[0, 3])?, DType::F32),
            ("half", floats(&[1.5, -2.0], &[2])?, DType::F16),
            ("brain", floats(&[1.5, -2.0], &[2])?, DType::BF16),
            ("long", floats(&[-1.0, (1u64 << 40) as f64], &[2])?, DType::I64),
            ("flags", floats(&[1.0, 0.0], &[2])?, DType::U8),
        ];
        assert_eq!(model.len(), expected.len());
        for (name, tensor, dtype) in expected {
            let found = model.get(name).unwrap();
            assert!(found.dtype() == dtype && equal(found, &tensor)?, "{name}: {found}");
        }
        let shadow = checkpoint.get("ema").and_then(|ema| ema.get("shadow_params")?.as_list()).unwrap();
        let [Value::Tensor(parameter), Value::Tensor(_)] = shadow else { panic!("{shadow:?}") };
        assert!(equal(&parameter.to_tensor()?, &(&base + 1.0)?)?);
        let int = |key| checkpoint.get(key).and_then(Value::as_int);
        assert_eq!((int("step"), int("big")), (Some(3), Some(-(1 << 40))));
        let shape: Vec<_> =
            checkpoint.get("shape").and_then(Value::as_list).unwrap().iter().map(Value::as_int).collect();
        assert_eq!(shape, [Some(2), Some(3), Some(4)]);
        assert!(matches!(checkpoint.get("text"), Some(Value::Text(text)) if &**text == "β → 20"));
        assert!(matches!(checkpoint.get("nothing"), Some(Value::None)));
    }
    Ok(())
}

#[test]
fn every_prefix_is_an_error() {
    for file in [ARCHIVE, LEGACY, SCRIPT] {
        for end in 0..file.len() {
            let error = read_pth(file[..end].to_vec()).err();
            assert!(matches!(error, Some(Error::Pth(_))), "{end} of {} bytes: {error:?}", file.len());
        }
    }
}

#[test]
fn flipped_bytes_never_do_more_than_fail() {
    for file in [ARCHIVE, LEGACY, SCRIPT] {
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = file.to_vec();
                bytes[at] ^= flip;
                if let Ok(value) = read_pth(bytes) {
                    // Whatever is accepted can be had.
                    drop(value.get("model").unwrap_or(&value).to_weights());
                }
            }
        }
    }
}

/// An archive around a pickle and storages of these lengths.
fn archive(pickle: &[u8], storages: &[(&str, usize)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    zip.start_file("a/data.pkl", options).unwrap();
    zip.write_all(pickle).unwrap();
    for (key, length) in storages {
        zip.start_file(format!("a/data/{key}"), options).unwrap();
        zip.write_all(&vec![0; *length]).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The reason why a pickle is refused; one storage "0" of 16 bytes is there.
fn refusal(pickle: &[u8]) -> String {
    let file = archive(pickle, &[("0", 16)], CompressionMethod::Stored);
    read_pth(file).err().map_or("accepted".into(), |error| error.to_string())
}

/// A tensor of storage "0" with `count` floats, offset, shape and strides.
fn tensor(count: u32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |i: &i32| [b"J".as_slice(), &i.to_le_bytes()].concat();
    let tuple = |items: &[i32]| [b"(".to_vec(), items.iter().flat_map(int).collect(), b"t".to_vec()].concat();
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu"
            .to_vec(),
        int(&(count as i32)),
        b"tQ".to_vec(),
        int(&offset),
        tuple(shape),
        tuple(strides),
        b"\x89Nt".to_vec(),
        b"R.".to_vec(),
    ]
    .concat()
}

#[test]
fn nothing_is_called_and_the_name_is_told() {
    let cases: [(&[u8], &[&str]); 8] = [
        (b"cos\nsystem\n(U\x02lstR.", &["the name os.system", "at byte 0"]),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.", &["the name os.system", "at byte 14"]),
        (b"cbuiltins\neval\n(U\x011tR.", &["builtins.eval"]),
        (b"ctorch\nload\n.", &["torch.load"]),
        (b"ctorch\nQInt8Storage\n.", &["torch.QInt8Storage"]),
        (b"(U\x02lsios\nsystem\n.", &["opcode 0x69"]),
        (b"ctorch\nFloatStorage\n)R.", &["other arguments"]),
        (b"ccollections\nOrderedDict\n)\x81.", &["an object of another kind"]),
    ];
    for (pickle, words) in cases {
        let found = refusal(pickle);
        assert!(words.iter().all(|word| found.contains(word)), "{words:?}: {found}");
    }
}

#[test]
fn no_size_is_believed() {
    assert_eq!(refusal(&tensor(4, 0, &[2, 2], &[2, 1])), "accepted");
    assert_eq!(refusal(&tensor(4, 1, &[3], &[1])), "accepted");
    assert_eq!(refusal(&tensor(4, 9, &[0, 3], &[1, 1])), "accepted");
    let lies = [
        tensor(5, 0, &[2, 2], &[2, 1]),
        tensor(3, 0, &[2, 2], &[2, 1]),
        tensor(4, 0, &[5], &[1]),
        tensor(4, 1, &[2, 2], &[2, 1]),
        tensor(4, -1, &[1], &[1]),
        tensor(4, 0, &[-1], &[1]),
        tensor(4, 0, &[2], &[-1]),
        tensor(4, 0, &[1 << 30, 1 << 30, 1 << 30, 1 << 30], &[0, 0, 0, 0]),
        // Sixteen bytes that show as a gigabyte.
        tensor(4, 0, &[1 << 28], &[0]),
        tensor(4, 0, &[2, 2], &[i32::MAX, i32::MAX]),
        tensor(4, 0, &[2], &[1, 1]),
        tensor(4, 0, &[1; 9], &[1; 9]),
    ];
    for (i, lie) in lies.iter().enumerate() {
        assert!(refusal(lie).starts_with("not a readable .pth file"), "lie {i}: {}", refusal(lie));
    }
    for (pickle, why) in [
        (b"X\xff\xff\xff\xffabc.".as_slice(), "4294967295 bytes are announced where 4 are left"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "bytes are announced"),
        (b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.", "8 are read"),
        (b"\x8b\xff\xff\xff\x7f.", "bytes are announced"),
        (b"h\x05.", "never put aside"),
        (b"0.", "the stack is empty"),
        (b"(K\x01(0.", "the stack is empty"),
        (b"t.", "no mark"),
        (b"\x80\x09.", "protocol 9"),
        (b"}(K\x01u.", "a key without a value"),
        (b"K\x01K\x02a.", "holds nothing"),
        (b"}(U\x01aK\x01U\x01aK\x02u.", "stands twice"),
        (b"K\x01", "are left"),
    ] {
        let found = refusal(pickle);
        assert!(found.contains(why), "{why}: {found}");
    }
}

#[test]
fn depth_loops_and_sharing_end() {
    let deep = [vec![b']'; 100_000], vec![b'a'; 99_999], b".".to_vec()].concat();
    assert!(refusal(&deep).contains("nested more than 64 deep"));
    // A list that holds itself.
    assert!(refusal(b"]q\x00h\x00a.").contains("nested more than"));
    // Thirty lists, each of twice the one before.
    let doubling: Vec<u8> = (0..30).flat_map(|i| [b']', b'q', i + 1, b'(', b'h', i, b'h', i, b'e']).collect();
    let doubling = [b"K\x01q\x00".to_vec(), doubling, b".".to_vec()].concat();
    assert!(refusal(&doubling).contains("refer to each other"));
    for opcode in [b'N', b'('] {
        assert!(refusal(&vec![opcode; 1_100_000]).contains("more than 1048576 things"));
    }
    // A hundred thousand opcodes that refer to one long tuple cost no more than they are long.
    let mut shared = [b"(".to_vec(), vec![b'N'; 50_000], b"tq\x00".to_vec()].concat();
    for _ in 0..20_000 {
        shared.extend(b"ctorch\nSize\nh\x00\x85R0");
    }
    shared.extend(b"N.");
    assert_eq!(refusal(&shared), "accepted");
}

#[test]
fn archives_are_what_torch_writes() {
    let whole = tensor(4, 0, &[4], &[1]);
    let reason = |file: Vec<u8>| read_pth(file).err().map_or("accepted".into(), |error| error.to_string());
    let stored = CompressionMethod::Stored;
    assert_eq!(reason(archive(&whole, &[("0", 16)], stored)), "accepted");
    assert!(reason(archive(&whole, &[("0", 16)], CompressionMethod::Deflated)).contains("compressed"));
    assert!(reason(archive(&whole, &[("1", 16)], stored)).contains("storage \"0\" is not in the archive"));
    // One byte of the storage is another than its checksum says.
    let mut file = archive(&whole, &[("0", 16)], stored);
    let at = file.windows(16).position(|bytes| bytes == [0; 16]).unwrap();
    file[at] = 1;
    assert!(reason(file).contains("zip archive"));
    assert!(reason(b"\x80\x04N.".to_vec()).contains("holds code"));
    let mut longer = LEGACY.to_vec();
    longer.push(0);
    assert!(reason(longer).contains("1 bytes after the last storage"));
}

#[test]
fn modules_of_torchscript_are_read_without_their_code() -> Result<()> {
    let weights = read_pth(SCRIPT.to_vec())?.to_weights()?;
    let names: Vec<&str> = weights.iter().map(|(name, _)| name).collect();
    let expected = [
        "beta",
        "first.mean",
        "first.weight",
        "layers.0.mean",
        "layers.0.weight",
        "layers.1.mean",
        "layers.1.weight",
    ];
    assert_eq!(names, expected);
    // arange(6) as [2, 3], transposed: a view with strides.
    let weight = |start: f64| floats(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0].map(|v| v + start), &[3, 2]);
    for (name, start) in [("first.weight", 0.0), ("layers.0.weight", 10.0), ("layers.1.weight", 20.0)] {
        assert!(equal(weights.get(name).unwrap(), &weight(start)?)?, "{name}");
    }
    assert!(equal(weights.get("layers.1.mean").unwrap(), &floats(&[20.0, -1.0], &[2])?)?);
    Ok(())
}

#[test]
fn an_object_of_another_class_is_not_made() {
    // A pickle that makes an object of a class that TorchScript does not have, and one that passes it arguments.
    for (class, arguments) in [("collections\nCounter", ")"), ("__torch__.net\nNet", "K\x01\u{85}")] {
        let mut pickle = b"\x80\x02c".to_vec();
        pickle.extend(class.as_bytes());
        pickle.push(b'\n');
        pickle.extend(arguments.chars().map(|c| c as u8));
        pickle.extend(b"\x81.");
        let told = if class.starts_with("__torch__") { "TorchScript" } else { "collections.Counter" };
        let error = refusal(&pickle);
        assert!(error.contains(told), "{error}");
    }
}
