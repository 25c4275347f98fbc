package rights

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash/crc32"
	"strings"
)

// A secret is lnk_, 256 random bits in base64url, and a checksum of both: scanners for secrets
// that were published by mistake find it by the prefix, and know by the checksum that it is one.

const (
	secretPrefix = "lnk_"
	randomChars  = 43 // of 32 bytes in base64url without padding
	sumChars     = 6
	// SecretBytes is the length of every secret.
	SecretBytes = len(secretPrefix) + randomChars + sumChars
	// AccessorBytes is the length of every accessor.
	AccessorBytes = 12
)

// errNoSecret does not repeat what was shown: it may be another secret of the caller.
var errNoSecret = errors.New("access token: is not one of Locknode, must be lnk_ and 49 more characters, as `locknode token create` prints it")

// encoding accepts only the one text that 32 bytes have.
var encoding = base64.RawURLEncoding.Strict()

// NewSecret returns a secret that nobody knows yet, and its hash, which is what the cluster
// keeps of it.
func NewSecret() (secret string, hash [32]byte) {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	var text [SecretBytes]byte
	copy(text[:], secretPrefix)
	encoding.Encode(text[len(secretPrefix):], random[:])
	appendSum(text[:SecretBytes-sumChars])
	return string(text[:]), sha256.Sum256(text[:])
}

// NewAccessor returns a name for an access token.
func NewAccessor() string { return strings.ToLower(rand.Text()[:AccessorBytes]) }

// HashOf returns the hash of a secret. It returns an error for what cannot be one, without
// repeating it. It allocates nothing.
func HashOf(secret string) (hash [32]byte, err error) {
	if len(secret) != SecretBytes || secret[:len(secretPrefix)] != secretPrefix {
		return hash, errNoSecret
	}
	var text, want [SecretBytes]byte
	copy(text[:], secret)
	var random [32]byte
	if n, err := encoding.Decode(random[:], text[len(secretPrefix):SecretBytes-sumChars]); err != nil || n != len(random) {
		return hash, errNoSecret
	}
	copy(want[:], secret)
	appendSum(want[:SecretBytes-sumChars])
	if want != text {
		return hash, errNoSecret
	}
	return sha256.Sum256(text[:]), nil
}

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// appendSum writes the checksum behind text, whose array has room for it.
func appendSum(text []byte) {
	sum := crc32.ChecksumIEEE(text)
	to := text[len(text) : len(text)+sumChars]
	for i := sumChars - 1; i >= 0; i-- {
		to[i] = digits[sum%62]
		sum /= 62
	}
}
