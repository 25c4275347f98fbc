package rights

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/locknode/locknode/fsm"
)

func TestSecretsAreKnownByAllOfTheirBytes(t *testing.T) {
	secret, hash := NewSecret()
	if got, err := HashOf(secret); err != nil || got != hash {
		t.Fatalf("HashOf(a new secret) = %x, %v; want %x", got, err, hash)
	}
	if hash != sha256.Sum256([]byte(secret)) {
		t.Error("the hash is not the SHA-256 of the text")
	}
	for i := range len(secret) {
		for _, c := range []byte{'A', 'b', '_', '=', 0} {
			other := secret[:i] + string(rune(c)) + secret[i+1:]
			if _, err := HashOf(other); (err == nil) != (other == secret) {
				t.Errorf("byte %d as %q: HashOf returns %v", i, c, err)
			}
		}
	}
}

// TestAccessTokensAreNotComparedByTheirBeginnings has two valid secrets with the same first
// characters.
func TestAccessTokensAreNotComparedByTheirBeginnings(t *testing.T) {
	secret, hash := NewSecret()
	other := []byte(secret)
	end := SecretBytes - sumChars
	if other[end-2]++; other[end-2] == secret[end-2] || !strings.ContainsRune(digits, rune(other[end-2])) {
		other[end-2] = 'A'
	}
	if string(other) == secret {
		other[end-2] = 'B'
	}
	appendSum(other[:end])
	otherHash, err := HashOf(string(other))
	if err != nil {
		t.Fatalf("HashOf(a secret with a valid checksum): %v", err)
	}
	b := NewBook(1, []fsm.AccessToken{{Accessor: "a", Name: "shop", Hash: hash}}, nil)
	if b.Holder(hash) == nil {
		t.Error("the secret is not known")
	}
	if b.Holder(otherHash) != nil {
		t.Error("another secret with the same beginning is taken for it")
	}
}

func TestRefusedSecretsAreNotRepeated(t *testing.T) {
	secret, _ := NewSecret()
	for _, bad := range []string{"", "lnk_", secret + "x", secret[1:], "password-of-somebody", strings.ToUpper(secret)} {
		_, err := HashOf(bad)
		if err == nil {
			t.Errorf("HashOf(%q) returns no error", bad)
		} else if bad != "" && bad != "lnk_" && strings.Contains(err.Error(), bad) {
			t.Errorf("the error repeats what was shown: %v", err)
		}
	}
}

func TestAccessorsDifferAndAreShort(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		a := NewAccessor()
		if len(a) != AccessorBytes || strings.Trim(a, "abcdefghijklmnopqrstuvwxyz234567") != "" || seen[a] {
			t.Fatalf("accessor %q", a)
		}
		seen[a] = true
	}
}

// FuzzSecret takes any text for a secret. It panics at none, accepts what NewSecret makes, and
// nothing that is not exactly of that form.
func FuzzSecret(f *testing.F) {
	secret, _ := NewSecret()
	f.Add(secret)
	f.Add("")
	f.Add("lnk_" + strings.Repeat("A", 49))
	f.Fuzz(func(t *testing.T, text string) {
		hash, err := HashOf(text)
		if err != nil {
			return
		}
		if len(text) != SecretBytes || !strings.HasPrefix(text, "lnk_") || hash != sha256.Sum256([]byte(text)) {
			t.Errorf("%q is accepted", text)
		}
	})
}
