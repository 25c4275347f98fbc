package apiv1

import "crypto/sha256"

// SessionHash is what stands for a session where others see it: a session's ID lets whoever
// knows it use the session, so it is shown to nobody but its client.
func SessionHash(id []byte) []byte {
	if len(id) == 0 {
		return nil
	}
	sum := sha256.Sum256(append([]byte("locknode session "), id...))
	return sum[:8]
}
