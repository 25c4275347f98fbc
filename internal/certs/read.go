package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Bounds of one file. The longest bundles of public CAs have some 150 certificates in 250 KB.
const (
	maxFile         = 1 << 20
	maxCertificates = 500
)

// readFile returns what is in a regular file of bounded size, also through symbolic links.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cannotRead(err)
	}
	if !info.Mode().IsRegular() {
		kind := "no regular file"
		if info.IsDir() {
			kind = "a directory"
		}
		return nil, fmt.Errorf("is %s, must be a regular file in PEM", kind)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, cannotRead(err)
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, cannotRead(err)
	case len(b) > maxFile:
		return nil, fmt.Errorf("is longer than %d bytes, must be certificates or a key in PEM", maxFile)
	case len(bytes.TrimSpace(b)) == 0:
		return nil, errors.New("is empty, must be certificates or a key in PEM")
	}
	return b, nil
}

// cannotRead drops the path from err: the caller's message begins with it.
func cannotRead(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("must be a file that exists: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("must be a file that this user can read: %w", err)
	}
	return fmt.Errorf("cannot be read: %w", err)
}

// pemFile is what is in one file.
type pemFile struct {
	certs []*x509.Certificate
	keys  []crypto.Signer
}

// Kinds of blocks.
const (
	blockCert = "CERTIFICATE"
	blockKey  = "PRIVATE KEY" // PKCS #8; the older kinds end in it, too
)

// parsePEM returns all certificates and private keys of a file. Text around the blocks and
// blocks of other kinds are skipped; a block that is damaged or cut off is an error, because a
// list of CAs must not get shorter unnoticed.
func parsePEM(b []byte) (p pemFile, err error) {
	begun := bytes.Count(append([]byte("\n"), b...), []byte("\n-----BEGIN "))
	if begun == 0 {
		return p, noPEM(b)
	}
	blocks := 0
	for rest := b; ; blocks++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if blocks == maxCertificates {
			return p, fmt.Errorf("has more than %d PEM blocks, must have fewer", maxCertificates)
		}
		if err := p.add(block); err != nil {
			return p, err
		}
	}
	if blocks != begun {
		return p, fmt.Errorf("has %d PEM blocks that begin and %d that are whole: it is damaged or still being written", begun, blocks)
	}
	return p, nil
}

// noPEM says what a file without any block may be.
func noPEM(b []byte) error {
	if len(b) > 1 && b[0] == 0x30 && b[1] >= 0x80 { // an ASN.1 sequence
		return errors.New("is not PEM, perhaps DER or PKCS #12: convert it with `openssl x509 -inform der` or `openssl pkcs12 -nodes`")
	}
	return errors.New("is not PEM: no line begins with -----BEGIN")
}

func (p *pemFile) add(block *pem.Block) error {
	switch {
	case block.Type == blockCert:
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("certificate %d of the file is not valid: %w", len(p.certs)+1, err)
		}
		p.certs = append(p.certs, cert)
	case strings.HasSuffix(block.Type, blockKey):
		key, err := parseKey(block)
		if err != nil {
			return err
		}
		p.keys = append(p.keys, key)
	}
	return nil
}

var errEncrypted = errors.New("has a private key that is encrypted with a password, must have one that is not: " +
	"`openssl pkey -in OLD -out NEW` decrypts it; keep the new file readable to its user alone")

// parseKey reads PKCS #8, and the older kinds for RSA and elliptic curves.
func parseKey(block *pem.Block) (crypto.Signer, error) {
	if block.Type == "ENCRYPTED "+blockKey || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, errEncrypted
	}
	var key any
	var err error
	switch block.Type {
	case blockKey:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA " + blockKey:
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC " + blockKey:
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("has a key in a block %q, must have one in \"PRIVATE KEY\" (PKCS #8)", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("has a private key that is not valid: %w", err)
	}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		return k, nil
	case *rsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, fmt.Errorf("has a private key of type %T, must have one of ECDSA, Ed25519 or RSA", key)
}

// fits reports whether key is the private key of cert.
func fits(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}
