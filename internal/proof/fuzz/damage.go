package fuzz

import (
	"bytes"
	"slices"
)

// Damage flips, cuts and moves bytes as choices say, and reports whether
// anything is different now.
func Damage(b []byte, choices *Bytes) (damaged []byte, different bool) {
	damaged = bytes.Clone(b)
	for !choices.Empty() && len(damaged) > 0 {
		at := int(choices.Uint64() % uint64(len(damaged)))
		switch choices.Pick(6) {
		case 0:
			damaged = damaged[:at]
		case 1: // bytes are lost
			damaged = slices.Delete(damaged, at, min(at+1+choices.Pick(16), len(damaged)))
		case 2: // bytes come in
			damaged = slices.Insert(damaged, at, choices.Take()...)
		case 3: // a stretch is overwritten
			copy(damaged[at:], choices.Take())
		case 4: // by another stretch
			from := int(choices.Uint64() % uint64(len(damaged)))
			copy(damaged[at:min(at+1+choices.Pick(256), len(damaged))], damaged[from:])
		default:
			damaged[at] ^= 1 << choices.Pick(8)
		}
	}
	return damaged, !bytes.Equal(damaged, b)
}

// FlipsAt is a choice of damage: one flipped bit for each position.
func FlipsAt(positions ...uint64) []byte {
	var b []byte
	for _, p := range positions {
		b = append(b, 0, 0, 0, 0, 0, 0, byte(p>>8), byte(p), 5, byte(p%8))
	}
	return b
}
