use proptest::prelude::*;

use super::*;

/// Longer than 72 bytes, and not only ASCII.
const LONG: &str = "Correct Horse Battery Staple, £5 für Ärger; Correct Horse Battery Staple, £5 für Ärger;";
/// Exactly 72 bytes.
const FULL: &str = "Correct Horse Battery Staple, £5 für Ärger; and then some more words!";

/// What the schemes' authors published: password, hash.
const PUBLISHED: &[(&[u8], &str)] = &[
    // crypt_blowfish 1.3, wrapper.c.
    (b"U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    (b"", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"),
    (b"\xff\xff\xa3", "$2b$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
    (b"\xa3", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq"),
    (b"\xa3", "$2x$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
    (b"\xff\xff\xa3", "$2x$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
    (b"1\xa3345", "$2x$05$/OK.fbVrR/bpIqNJ5ianF.o./n25XVfn6oAPaUvHe.Csk4zRfsYPi"),
    (&[0xaa; 72], "$2a$05$/OK.fbVrR/bpIqNJ5ianF.swQOIzjOiJ9GHEPuhEkvqrUyvWhEMx6"),
    // RFC 7914 §12.
    (
        b"password",
        "$scrypt$ln=10,r=8,p=16$TmFDbA$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWIurzDZLiKjiG/xCSedmDDaxyevuUqD7m2DYMvfoswGQA",
    ),
    (
        b"pleaseletmein",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw",
    ),
    // github.com/firebase/scrypt, README; the second from Supabase Auth's tests.
    (
        b"user1password",
        "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==",
    ),
    (
        b"mytestpassword",
        "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=ou9tdYTGyYm8kuR6Dt0Bp0kDuAYoXrK16mbZO4yGwAn3oLspjnN0/c41v8xZnO1n14J3MjKj1b2g6AUCAlFwMw==$C0sHCg9ek77hsg==$zKVTMvnWVw5BBOZNUdnsalx4c4c7y/w7IS5p6Ut2+CfEFFlz37J9huyQfov4iizN8dbjvEJlM5tQaJP84+hfTw==",
    ),
    // RFC 6070, the last with 25 bytes of output; RFC 7914 §11; Passlib's tests.
    (b"password", "$pbkdf2$1$c2FsdA$DGDID5YfDnHzqbUkr2ASBi/gN6Y"),
    (b"password", "$pbkdf2$4096$c2FsdA$SwB5AbdlSJq.rUnZJvch0GWkKcE"),
    (
        b"passwordPASSWORDpassword",
        "$pbkdf2$4096$c2FsdFNBTFRzYWx0U0FMVHNhbHRTQUxUc2FsdFNBTFRzYWx0$PS7sT.QchJuAyNg2YsDkSospGpZM8vBwOA",
    ),
    (
        b"passwd",
        "$pbkdf2-sha256$1$c2FsdA$VawEblbjCJ/sFpHCJUS2BflBhSFt3gRl5oudV8INrLxJypzM8Xm2RZkWZLOdd.8xfHG4RbHjC9UJESBB06GXgw",
    ),
    (b"password", "$pbkdf2-sha256$1212$4vjV83LKPjQzk31VI4E0Vw$hsYF68OiOUPdDZ1Fg.fJPeq1h/gXXY7acBp9/6c.tmQ"),
    (
        b"password",
        "$pbkdf2-sha512$1212$RHY0Fr3IDMSVO/RSZyb5ow$eNLfBK.eVozomMr.1gYa17k9B7KIK25NOEshvhrSX.esqY3s.FvWZViXz4KoLlQI.BzY/YTNJOiKc5gBYFYGww",
    ),
    // phpass' test.php; John the Ripper's, through Passlib's tests.
    (b"test12345", "$P$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0"),
    (b"123456", "$H$9PE8jEklgZhgLmZl5.HYJAzfGCQtzi1"),
    // Drepper's SHA-crypt.txt.
    (b"Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    (b"Hello world!", "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"),
    (
        b"we have a short salt string but not a short password",
        "$5$rounds=77777$short$JiO1O3ZpDAxGJeaDIuqCoEFysAe1mZNJRs3pw0KQRd/",
    ),
    (
        b"Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    (
        b"a very much longer text to encrypt.  This one even stretches over morethan one line.",
        "$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1",
    ),
    // Python: "{SSHA}" + b64encode(sha1(b"secretsalt").digest() + b"salt").
    (b"secret", "{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0"),
];

/// What other programs made of [`LONG`], or of [`FULL`] where they take no more: scheme, password, hash.
const MADE: &[(&str, &str, &str)] = &[
    // bcrypt 5.0.0 (PyPI).
    ("bcrypt:4", FULL, "$2b$04$L6QvLoXwTxiVVoDFj5ie4eLRUDp3Lgh0zG5aeJsVSEX6hErG8YYXO"),
    ("bcrypt:4", FULL, "$2a$04$gtZMfNbkPnu7UF/QqDOq9.sgY4GyPbNV0ca4MiMZq09B6h0cPCR02"),
    // libxcrypt 4.4 (crypt(3) of Debian 12).
    ("bcrypt:5", FULL, "$2x$05$/OK.fbVrR/bpIqNJ5ianF.EmPr0aFxjiCHWsFq7oQyPffWCz7CKCK"),
    ("bcrypt:5", FULL, "$2y$05$/OK.fbVrR/bpIqNJ5ianF.4WS1Jxj54m3dQGHeB/2qFhLxg6S1Bqi"),
    // Django 5.2.19.
    ("bcrypt:4", FULL, "bcrypt$$2b$04$3R9SPbWVN0groNOXlf9i0O7A57DbRUf3ubXvYL28.rvZpTFLFoh0y"),
    ("bcrypt-sha256:4", LONG, "bcrypt_sha256$$2b$04$1uVsM.esxKRYpcsKqTxX4e3Gui4CMdeM7MNgtaejxsExsywJt9ZLy"),
    (
        "pbkdf2-sha256:1000",
        LONG,
        "pbkdf2_sha256$1000$T4RbUVYgT7fV0uTXRVpsat$jRh0b+EN+WQL+D406fLLl+870xCC+8PDJKrswtlOvPA=",
    ),
    ("pbkdf2-sha1:1000", LONG, "pbkdf2_sha1$1000$vd9snlKacCF17q7zDQCtYw$yWSrrYj+bfZKo3FlYMjlq8OwK/Q="),
    (
        "scrypt:ln=10,r=8,p=5",
        LONG,
        "scrypt$1024$ZFyuzlZAUor8WwpdkhKeoG$8$5$FHU0/oCtpImwYO+HfZ2iQvgE40pX+iOSZ+e58Eg2Ma2HGa++hQS+Euvu7K6z7BjYXBxkSQQgTluwMASa/6FYLw==",
    ),
    // Passlib 1.7.4.
    (
        "scrypt:ln=10,r=8,p=1",
        LONG,
        "$scrypt$ln=10,r=8,p=1$lfJeKwUg5Nw7p7QWgvCecw$1xW92L4MlVvUwlq1VEhrInpn1wPqDAFjdX1u1pWXX2U",
    ),
    ("pbkdf2-sha1:1000", LONG, "$pbkdf2$1000$1/pf612r9X6P0dpbizEmZA$wajdpOjSTgr7NJYpwZpaALh/jfE"),
    (
        "pbkdf2-sha256:1000",
        LONG,
        "$pbkdf2-sha256$1000$DqEUwlhrLaU0BoCwVgoBYA$9EW.3VDNlpUolojPea.6uRl7iKQVuBHLyADY3xwXZdc",
    ),
    (
        "pbkdf2-sha512:1000",
        LONG,
        "$pbkdf2-sha512$1000$txai1Pofg1DKuVdqDSEEYA$IbCp7e5cgMmSa0ounuk0TJPef6nUVTJ/I53/DCFCjxjqbWTccUexWbJ8l1WM462xXsYrco12aH.AL7WSGtnJoQ",
    ),
    ("phpass:8", LONG, "$P$6T9B2uzFCfuO0YEEdnz0pEV92U8hRu0"),
    ("phpass:8", LONG, "$H$6KxzpvVcfW01OIBbMOcfeLdfjpL94k."),
    (
        "sha256-crypt:1000",
        LONG,
        "$5$rounds=1000$Qyq0btmq7VHov2vU$wrD.SpPgNNcdBNaSoyjBSsRoFvPGpN.802YuVgXie2A",
    ),
    (
        "sha512-crypt:1000",
        LONG,
        "$6$rounds=1000$MaaTPbuaz101GcRC$7HKd71uWM9ixR6vvnpOTIyPIZ0.LjYfTxW/5fFDb5YAENdmbwf3.64ydW7DNOD2MOensEhe8UpkT4ioKI0CwU0",
    ),
    (
        "sha512-crypt:5000",
        LONG,
        "$6$i16Wg2fwhPDo5VWY$kFqfmjkLYltAZ7SXtL2GAabFstNF4kcoV/niaVnWYLkQv9hK4AObtEjIqMMunHjYCt/z0iqQQNJ9OUbIBH6Cc/",
    ),
    ("salted-sha1", LONG, "{SSHA}TuY24wsXnqEQdp41iJUOz8MEcCIdg3CO"),
    ("salted-sha256", LONG, "{SSHA256}WNU1EUxulsOjQF2rEHNIZ2QK6yeuMZLKKdRShJQNoS2Sck5prVXKuQ=="),
    (
        "salted-sha512",
        LONG,
        "{SSHA512}dGRxkGAVimxCk0tnXofc4hu3ehfv6BcG5hfd0z63N/7RfHFVPP/7gvqLGze/IKLRUB/WNMcyhPteBuwCBJZbyBkjJCQkxHgP",
    ),
    // Werkzeug 3.1.9.
    (
        "scrypt:ln=10,r=8,p=1",
        LONG,
        "scrypt:1024:8:1$OuVP0c1nnuyMCKN0$54ceed102d006a6a13ef5a0dc263b8b675c6427e0f1da4be6397800d74ac095ff6c70085595f70870123b507c51c770e7ea9f7e9ab0a67803efe3fa2ba1f2cbf",
    ),
    (
        "pbkdf2-sha256:1000",
        LONG,
        "pbkdf2:sha256:1000$WHnTsYJYYjtC6pIK$684fcb14fe513df7f7bb7245e1569f546feb08018e61ee6df3ae96916332300a",
    ),
    // hashlib of Python 3.11, in PHC's form.
    (
        "pbkdf2-sha256:1000",
        LONG,
        "$pbkdf2-sha256$i=1000,l=32$EBESExQVFhcYGRobHB0eHw$k7ubhOCRL5GyaZ2TDQvsdF8EjLpD2/cnn9tdjjGA5jo",
    ),
];

/// argon2-cffi 25.1.0 through Django 5.2.19.
const DJANGO_ARGON2: &str = "argon2$argon2id$v=19$m=64,t=1,p=1$bHJpM2p0QXFrcWlpVmhwTXJuZjVUQw$BqMazHxcgG1Zq5ZcuTDPyi8xeX8s5t7DxGT1L+Et5P0";

#[test]
fn every_published_vector_is_right_and_its_neighbour_wrong() {
    for (password, stored) in PUBLISHED {
        assert_eq!(verify(password, stored), Some(true), "{stored}");
        assert_eq!(verify(&[password, b"x".as_slice()].concat(), stored), Some(false), "{stored}");
        assert_eq!(canonical(stored).as_deref(), Ok(*stored));
    }
}

#[test]
fn what_other_programs_made_is_right_for_exactly_the_password() {
    for (name, password, stored) in MADE {
        assert_eq!(scheme(stored).as_deref(), Some(*name));
        assert_eq!(verify(password.as_bytes(), stored), Some(true), "{stored}");
        for wrong in [
            &format!("{password}x"),
            &format!("x{password}"),
            &password.to_lowercase(),
            &password.replace('£', "#"),
            password.split_at(71).0,
            "",
        ] {
            assert_eq!(verify(wrong.as_bytes(), stored), Some(false), "{wrong} {stored}");
        }
        if password.len() > 72 {
            assert_eq!(verify(&password.as_bytes()[..72], stored), Some(false), "{stored}");
        }
        assert_eq!(canonical(&format!(" {stored}\n")).as_deref(), Ok(*stored));
    }
}

#[test]
fn bcrypt_opens_nothing_for_a_password_that_it_would_cut() {
    // crypt_blowfish's own vector says yes to this one: "chars after 72 are ignored as usual".
    let stored = "$2a$05$/OK.fbVrR/bpIqNJ5ianF.swQOIzjOiJ9GHEPuhEkvqrUyvWhEMx6";
    let long = [[0xaa; 72].as_slice(), b"chars after 72 are ignored as usual"].concat();
    assert_eq!(verify(&long, stored), Some(false));
    let empty = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy";
    assert_eq!(verify(b"\0", empty), Some(false));
    assert_eq!(verify(b"\0\0\0", empty), Some(false));
}

#[test]
fn a_hash_that_asks_for_too_much_is_refused_without_being_computed() {
    let (dots, salt, hash) = (".".repeat(86), "c2FsdHNhbHQ", "A".repeat(43));
    let key = "A".repeat(86);
    for hostile in [
        format!("$2b$16${}", &dots[..53]),
        format!("bcrypt_sha256$$2b$31${}", &dots[..53]),
        format!("$scrypt$ln=22,r=8,p=1${salt}${hash}"),
        format!("$scrypt$ln=63,r=4294967295,p=4294967295${salt}${hash}"),
        format!("$scrypt$ln=1,r=18446744073709551615,p=18446744073709551615${salt}${hash}"),
        format!("$scrypt$ln=14,r=8,p=1000${salt}${hash}"),
        format!("scrypt$1048576$salt$64$1${hash}="),
        format!("scrypt:1048576:64:1$salt${}", "00".repeat(64)),
        format!("$fbscrypt$v=1,n=20,r=64,p=1,ss=Bw==,sk={key}==${salt}=${key}=="),
        format!("$pbkdf2-sha256$4294967295${salt}${hash}"),
        format!("$pbkdf2-sha256$i=18446744073709551615${salt}${hash}"),
        format!("$pbkdf2$2000001${salt}${hash}"),
        format!("pbkdf2_sha256$100000000$salt${hash}="),
        format!("$P$S{}", &dots[..30]),
        format!("$5$rounds=999999999$salt${}", &dots[..43]),
        format!("$6$rounds=1000001$salt${dots}"),
        format!("$argon2id$v=19$m=1048577,t=1,p=1${salt}${hash}"),
        format!("$argon2id$v=19$m=64,t=40000,p=1${salt}${hash}"),
        format!("$argon2id$v=19$m=1024,t=1,p=17${salt}${hash}"),
    ] {
        assert_eq!((verify(b"x", &hostile), scheme(&hostile)), (None, None), "{hostile}");
        let words = canonical(&hostile).unwrap_err();
        assert!(words.contains("more work than one check may cost (at most "), "{hostile}: {words}");
    }
    // In each round the whole password is hashed: a long one must not multiply the cap.
    let stored = format!("$6$rounds=1000000$salt${dots}");
    assert_eq!(verify(&[b'x'; 1024], &stored), None);
}

#[test]
fn a_damaged_hash_is_refused_in_words() {
    let (dots, salt, hash) = (".".repeat(86), "c2FsdHNhbHQ", "A".repeat(43));
    for damaged in [
        format!("$2b$12${}", &dots[..52]),
        format!("$2b$12${}", &dots[..54]),
        format!("$2b$12$ä{}", &dots[..51]),
        format!("$2b$3${}", &dots[..53]),
        format!("$2b$03${}", &dots[..53]),
        format!("$2b$+9${}", &dots[..53]),
        format!("$2c$12${}", &dots[..53]),
        format!("$scrypt$ln=14,r=8${salt}${hash}"),
        format!("$scrypt$ln=14,r=8,r=8${salt}${hash}"),
        format!("$scrypt$ln=14,r=8,p=1,x=1${salt}${hash}"),
        format!("$scrypt$ln=014,r=8,p=1${salt}${hash}"),
        format!("$scrypt$ln=64,r=8,p=1${salt}${hash}"),
        format!("$scrypt$ln=14,r=0,p=1${salt}${hash}"),
        format!("$scrypt$ln=14,r=8,p=1${salt}$AAAA"),
        format!("$scrypt$ln=14,r=8,p=1$!!!${hash}"),
        format!("scrypt$16383$salt$8$1${hash}="),
        format!("$fbscrypt$v=2,n=14,r=8,p=1,ss=Bw==,sk={hash}=${salt}=${hash}="),
        format!("$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk={hash}=${salt}=${}==", "A".repeat(86)),
        format!("$pbkdf2-sha256$0${salt}${hash}"),
        format!("$pbkdf2-sha256$i=1000,l=31${salt}${hash}"),
        format!("$pbkdf2-sha256$1000$${hash}"),
        format!("pbkdf2_sha256$1000$salt${}", "A".repeat(27)),
        format!("$P$4{}", &dots[..30]),
        format!("$P$B{}", &dots[..29]),
        format!("$5$rounds=999$salt${}", &dots[..43]),
        format!("$5$seventeenletters!${}", &dots[..43]),
        format!("$6$salt${}", &dots[..85]),
        "{SSHA}".to_owned(),
        format!("{{SSHA}}{}", &hash[..27]),
        format!("{{SSHA}}{}", "A".repeat(600)),
        format!("$argon2id$v=18$m=64,t=1,p=1${salt}${hash}"),
        format!("$argon2id$v=19$m=64,t=1${salt}${hash}"),
        format!("$argon2id$v=19$m=15,t=1,p=2${salt}${hash}"),
        format!("$argon2id$v=19$m=64,t=0,p=1${salt}${hash}"),
        format!("$argon2id$v=19$m=64,t=1,p=1$c2FsdA${hash}"),
    ] {
        assert_eq!((verify(b"x", &damaged), scheme(&damaged)), (None, None), "{damaged}");
        assert!(canonical(&damaged).unwrap_err().contains("is damaged"), "{damaged}");
    }
}

#[test]
fn argon2_is_taken_for_import_and_left_to_the_server_itself() {
    let plain = DJANGO_ARGON2.strip_prefix("argon2").unwrap();
    let sixteen = plain.replace("v=19", "v=16").replace("argon2id", "argon2i");
    let none = plain.replace("v=19$", "").replace("argon2id", "argon2d");
    for text in [plain, &sixteen, &none] {
        assert_eq!(canonical(text).as_deref(), Ok(text));
        assert_eq!((verify(LONG.as_bytes(), text), scheme(text)), (None, None));
    }
    assert_eq!(canonical(DJANGO_ARGON2).as_deref(), Ok(plain));
}

#[test]
fn what_is_no_hash_is_refused_with_words_that_help_and_do_not_repeat_it() {
    for (text, words) in [
        ("", "the hash is empty"),
        ("correct horse battery staple", "not a password hash that the server knows"),
        ("$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", "yescrypt"),
        ("$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/", "MD5-crypt"),
        ("5f4dcc3b5aa765d61d8327deb882cf99", "a bare MD5 or SHA digest"),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "unsalted SHA-1"),
    ] {
        let refused = canonical(text).unwrap_err();
        assert!(refused.contains(words) && refused.contains("set a new one"), "{refused}");
        assert!(text.is_empty() || !refused.contains(text), "{refused}");
        assert_eq!((verify(b"password", text), scheme(text)), (None, None));
    }
    let in_ldap = "{CRYPT}$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
    assert_eq!(canonical(in_ldap).as_deref(), Ok(&in_ldap[7..]));
}

fn any_hash() -> impl Strategy<Value = &'static str> {
    let made = MADE.iter().map(|(_, _, stored)| *stored);
    let published = PUBLISHED.iter().map(|(_, stored)| *stored);
    proptest::sample::select(made.chain(published).chain([DJANGO_ARGON2]).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*", start in any_hash(), cut in 0..64usize) {
        let start = start.get(..cut.min(start.len())).unwrap_or_default();
        for text in [text.clone(), format!("{start}{text}")] {
            let _ = (scheme(&text), canonical(&text));
        }
    }

    #[test]
    fn no_changed_byte_panics(stored in any_hash(), at: prop::sample::Index, to in 0..128u8) {
        let mut changed = stored.as_bytes().to_vec();
        let at = at.index(changed.len());
        changed[at] = to;
        let changed = String::from_utf8(changed).unwrap();
        let (before, after) = (scheme(stored), scheme(&changed));
        let _ = canonical(&changed);
        // A changed cost may be dear: only what stays as cheap as it was is computed.
        if before == after {
            let _ = verify(b"password", &changed);
        }
    }
}
