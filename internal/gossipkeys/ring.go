package gossipkeys

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// MaxKeys bounds the keys of a ring. A rotation needs two.
const MaxKeys = 8

// keyBytes is the length of a key that is made here: AES-256.
const keyBytes = 32

// Ring is the keys that a node has at one time. Its methods return other rings, and change nothing.
type Ring struct {
	// Version grows with each change. 0: the node has not been in a cluster with these keys.
	Version uint64
	// Given says that an operator has given a key, and that the node has not made it up.
	Given bool
	// Keys are 1 to MaxKeys different ones of 16, 24 or 32 bytes. The first one encrypts.
	Keys [][]byte
}

// MadeUp returns a ring with a new random key.
func MadeUp() Ring { return Ring{Keys: [][]byte{NewKey()}} }

// NewKey returns a random key.
func NewKey() []byte {
	key := make([]byte, keyBytes)
	rand.Read(key)
	return key
}

// CheckKey returns an error if a key has a length that AES does not have.
func CheckKey(key []byte) error {
	if n := len(key); n != 16 && n != 24 && n != 32 {
		return fmt.Errorf("gossip key: is %d bytes long, must be 16, 24 or 32", n)
	}
	return nil
}

// Fingerprint names a key and does not tell it: 16 hexadecimal digits.
type Fingerprint string

// FingerprintOf returns the name of a key.
func FingerprintOf(key []byte) Fingerprint {
	sum := sha256.Sum256(append([]byte("locknode gossip key\x00"), key...))
	return Fingerprint(hex.EncodeToString(sum[:8]))
}

// Fingerprints are those of the ring's keys, in their order.
func (r Ring) Fingerprints() []Fingerprint {
	all := make([]Fingerprint, len(r.Keys))
	for i, key := range r.Keys {
		all[i] = FingerprintOf(key)
	}
	return all
}

// index is the place of a key; -1: the ring does not have it.
func (r Ring) index(f Fingerprint) int {
	return slices.IndexFunc(r.Keys, func(key []byte) bool { return FingerprintOf(key) == f })
}

// Check returns an error if it is no ring that a node may use.
func (r Ring) Check() error {
	if n := len(r.Keys); n < 1 || n > MaxKeys {
		return fmt.Errorf("gossip keys: are %d, must be 1 to %d", n, MaxKeys)
	}
	for i, key := range r.Keys {
		if err := CheckKey(key); err != nil {
			return err
		}
		if slices.ContainsFunc(r.Keys[:i], func(k []byte) bool { return bytes.Equal(k, key) }) {
			return errors.New("gossip keys: have one twice, must be different ones")
		}
	}
	return nil
}

// digest decides between rings of the same version.
func (r Ring) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, key := range r.Keys {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(key))))
		h.Write(key)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// NewerThan reports whether nodes that have either ring go on with this one. Of two rings that
// differ one is newer.
func (r Ring) NewerThan(o Ring) bool {
	if r.Version != o.Version {
		return r.Version > o.Version
	}
	if r.Given != o.Given {
		return r.Given
	}
	mine, theirs := r.digest(), o.digest()
	return bytes.Compare(mine[:], theirs[:]) > 0
}

// Equal reports whether neither ring is newer.
func (r Ring) Equal(o Ring) bool { return !r.NewerThan(o) && !o.NewerThan(r) }

// after returns the keys as a ring of a version, of the next one if that is 0.
func (r Ring) after(version uint64, keys [][]byte) Ring {
	return Ring{Version: max(version, r.Version+1), Given: true, Keys: keys}
}

// With returns the ring with one more key, which decrypts. A ring that has it stays as it is.
func (r Ring) With(key []byte, version uint64) (Ring, error) {
	if err := CheckKey(key); err != nil {
		return r, err
	}
	switch f := FingerprintOf(key); {
	case r.index(f) >= 0:
		return r, nil
	case len(r.Keys) == MaxKeys:
		return r, fmt.Errorf("gossip keys: are %d, must be at most %d: remove one that is no longer used", len(r.Keys)+1, MaxKeys)
	}
	return r.after(version, append(slices.Clone(r.Keys), bytes.Clone(key))), nil
}

// Using returns the ring with one of its keys as that which encrypts.
func (r Ring) Using(f Fingerprint, version uint64) (Ring, error) {
	i := r.index(f)
	switch {
	case i < 0:
		return r, fmt.Errorf("gossip key %.40q: is not on this node, must be installed on all first", f)
	case i == 0 && version <= r.Version:
		return r, nil
	}
	keys := slices.Clone(r.Keys)
	key := keys[i]
	keys = slices.Insert(slices.Delete(keys, i, i+1), 0, key)
	return r.after(version, keys), nil
}

// Without returns the ring without one of its keys. It does not remove the one that encrypts. A
// ring that does not have the key only gets the version.
func (r Ring) Without(f Fingerprint, version uint64) (Ring, error) {
	i := r.index(f)
	switch {
	case i == 0:
		return r, fmt.Errorf("gossip key %s: encrypts gossip, must not be removed before another one is in use", f)
	case i < 0 && version <= r.Version:
		return r, nil
	}
	keys := slices.Clone(r.Keys)
	if i > 0 {
		keys = slices.Delete(keys, i, i+1)
	}
	return r.after(version, keys), nil
}

// ofCluster is the ring of a node that belongs to a cluster.
func (r Ring) ofCluster() Ring {
	r.Version = cmp.Or(r.Version, 1)
	return r
}
