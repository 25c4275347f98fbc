package certs

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func block(kind string, b []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
}

func TestKeysOfAllCommonKindsAreRead(t *testing.T) {
	ec, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for name, b := range map[string][]byte{
		"EC, PKCS #8": block("PRIVATE KEY", pkcs8(ec)), "EC, SEC 1": block("EC PRIVATE KEY", ecDER),
		"EC with parameters before it": append(block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}), block("EC PRIVATE KEY", ecDER)...),
		"RSA, PKCS #8":                 block("PRIVATE KEY", pkcs8(rs)), "RSA, PKCS #1": block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs)),
		"Ed25519": block("PRIVATE KEY", pkcs8(ed)),
	} {
		p, err := parsePEM(b)
		if err != nil || len(p.keys) != 1 {
			t.Errorf("%s: %d keys, %v", name, len(p.keys), err)
		}
	}
}

func TestBadFilesAreNamedForWhatTheyAre(t *testing.T) {
	ca := newCA(t, "CA")
	p := issue(t, ca, nodeID("n1"))
	cert := parse(t, p)
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte("x")})
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"text":                 {[]byte("hello"), "is not PEM: no line begins with"},
		"DER":                  {cert.Raw, "perhaps DER or PKCS #12: convert it"},
		"one byte":             {[]byte{0x30}, "is not PEM"},
		"cut off":              {p.Cert[:len(p.Cert)-30], "1 PEM blocks that begin and 0 that are whole"},
		"second cut off":       {append(caPEM(t, ca), p.Cert[:100]...), "2 PEM blocks that begin and 1 that are whole"},
		"first damaged":        {append(bytes.Replace(p.Cert, []byte("\nM"), []byte("\n!"), 1), p.Cert...), "2 PEM blocks that begin and 1 that are whole"},
		"no certificate in it": {block(blockCert, []byte("hello")), "certificate 1 of the file is not valid"},
		"second is none":       {append(caPEM(t, ca), block(blockCert, cert.Raw[:100])...), "certificate 2 of the file is not valid"},
		"key is none":          {block(blockKey, []byte("hello")), "private key that is not valid"},
		"key with a password":  {block("ENCRYPTED PRIVATE KEY", []byte("hello")), "encrypted with a password"},
		"old password":         {encrypted, "encrypted with a password"},
		"unknown kind of key":  {block("OPENSSH PRIVATE KEY", []byte("hello")), "must have one in"},
		"no end of blocks":     {bytes.Repeat(block("X", nil), maxCertificates+1), "has more than 500 PEM blocks"},
	} {
		_, err := parsePEM(c.b)
		wantError(t, name, err, c.want)
	}
}

func TestTextAroundBlocksIsSkipped(t *testing.T) {
	ca := newCA(t, "CA")
	b := append([]byte("subject=CN = CA\n\n"), caPEM(t, ca)...)
	b = append(b, "\nissuer: x -----BEGIN y\n"...)
	b = append(b, block("X509 CRL", []byte("x"))...)
	b = append(b, bytes.ReplaceAll(caPEM(t, ca), []byte("\n"), []byte("\r\n"))...)
	p, err := parsePEM(b)
	if err != nil || len(p.certs) != 2 {
		t.Errorf("%d certificates, %v; want 2", len(p.certs), err)
	}
}

func TestFilesThatCannotBeReadAreNamed(t *testing.T) {
	dir := t.TempDir()
	unreadable := write(t, filepath.Join(dir, "unreadable"), []byte("x"))
	if err := os.Chmod(unreadable, 0); err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{
		filepath.Join(dir, "none"): "must be a file that exists",
		dir:                        "is a directory, must be a regular file",
		os.DevNull:                 "is no regular file",
		write(t, filepath.Join(dir, "empty"), nil):          "is empty, must be",
		write(t, filepath.Join(dir, "x"), []byte(" \n")):    "is empty, must be",
		write(t, filepath.Join(dir, "long"), long(t)):       "is longer than 1048576 bytes",
		filepath.Join(write(t, dir+"/file", []byte{}), "x"): "cannot be read: not a directory",
	}
	if os.Getuid() != 0 && runtime.GOOS != "windows" { // root reads everything
		cases[unreadable] = "must be a file that this user can read"
	}
	for path, want := range cases {
		_, err := readFile(path)
		wantError(t, path, err, want)
		if err != nil && strings.Contains(err.Error(), path) {
			t.Errorf("%v: has the path twice once the caller has added it", err)
		}
	}
}

func long(t *testing.T) []byte {
	t.Helper()
	return bytes.Repeat([]byte("x"), maxFile+1)
}

// FuzzPEM: whatever a file holds, reading it ends with an error or with what is in it, and a file
// that was accepted has a certificate or key for each block of those kinds.
func FuzzPEM(f *testing.F) {
	ca, err := NewCA("CA", aDay, start)
	if err != nil {
		f.Fatal(err)
	}
	p, err := ca.Pair()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Cert)
	f.Add(append(p.Cert, p.Key...))
	f.Add(p.Cert[:len(p.Cert)/2])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add([]byte{0x30, 0x82, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePEM(b)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without text")
			}
			return
		}
		begun := bytes.Count(append([]byte("\n"), b...), []byte("\n-----BEGIN "))
		wanted, rest := 0, b
		for range begun {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				t.Fatalf("of %d blocks not all are whole", begun)
			}
			if block.Type == blockCert || strings.HasSuffix(block.Type, blockKey) {
				wanted++
			}
		}
		if len(p.certs)+len(p.keys) != wanted {
			t.Fatalf("%d certificates and %d keys in %d blocks of those kinds", len(p.certs), len(p.keys), wanted)
		}
		for _, cert := range p.certs {
			_, _ = Identify(cert)
			_, _ = nameOf(cert), kindOf(cert.PublicKey)
		}
	})
}
