package apiv1

import "crypto/sha256"

// SessionHash returns the 8 bytes that identify a session to all but its client: the ID itself
// is a secret, because it is enough to use the session. It returns nil for an empty ID.
func SessionHash(id []byte) []byte {
	if len(id) == 0 {
		return nil
	}
	sum := sha256.Sum256(append([]byte("locknode session "), id...))
	return sum[:8]
}
