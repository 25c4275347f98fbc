package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/locknode/locknode/internal/proof/testall"
)

// grow makes a bbolt file with deep trees, nested and inline buckets, values
// over several pages, and free pages.
func grow(t testing.TB, path string, noFreelistSync bool, seed uint64) {
	t.Helper()
	growFor(t, path, noFreelistSync, seed, 20)
}

// growFor makes the same file each time.
func growFor(t testing.TB, path string, noFreelistSync bool, seed uint64, rounds int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: noFreelistSync, NoSync: true, FreelistType: bbolt.FreelistArrayType})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := rand.New(rand.NewPCG(seed, 1))
	for round := range rounds {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("logs"))
			if err != nil {
				return err
			}
			for i := range 100 {
				key := binary.BigEndian.AppendUint64(nil, uint64(round*100+i))
				if err := b.Put(key, bytes.Repeat([]byte{byte(i)}, r.IntN(300))); err != nil {
					return err
				}
			}
			if err := b.Put([]byte("large"), make([]byte, r.IntN(40_000))); err != nil {
				return err
			}
			for range 70 {
				key := binary.BigEndian.AppendUint64(nil, r.Uint64N(uint64(round*100+100)))
				if err := b.Delete(key); err != nil {
					return err
				}
			}
			inner, err := tx.CreateBucketIfNotExists(fmt.Appendf(nil, "small %d", round%3))
			if err != nil {
				return err
			}
			return inner.Put([]byte{byte(round)}, []byte("v"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestBoltCheckAcceptsWhatBboltWrites(t *testing.T) {
	for seed := range uint64(10) {
		for _, noSync := range []bool{true, false} {
			path := filepath.Join(tempDir(t), "db")
			grow(t, path, noSync, seed)
			if err := checkBolt(path); err != nil {
				t.Errorf("seed %d, freelist sync off %v: %v", seed, noSync, err)
			}
		}
	}
	if err := checkBolt(filepath.Join(tempDir(t), "none")); err != nil {
		t.Errorf("a missing file: %v", err)
	}
}

// What the check accepts, bbolt must be able to open and walk. If it cannot, it
// ends this process.
func TestBboltSurvivesWhatBoltCheckAccepts(t *testing.T) {
	path := filepath.Join(tempDir(t), "db")
	grow(t, path, true, 1)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	rounds := 200
	if !testall.On() {
		rounds = 60
	}
	refused := 0
	r := rand.New(rand.NewPCG(2, 3))
	for range rounds {
		bad := bytes.Clone(good)
		// Headers and element tables are where it hurts.
		at := r.IntN(len(bad)/page)*page + r.IntN(200)
		bad[at] ^= 1 << r.IntN(8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if checkBolt(path) != nil {
			refused++
			continue
		}
		walk(t, path)
	}
	t.Logf("%d of %d flips refused", refused, rounds)
	if refused < rounds/5 {
		t.Errorf("only %d of %d flips were refused; the test does not hit", refused, rounds)
	}
}

func walk(t testing.TB, path string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, Timeout: time.Second, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		t.Fatalf("bbolt does not open what the check accepts: %v", err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			if b == nil {
				return nil // a value where a bucket was; who opens it finds that out
			}
			return b.ForEach(func(_, _ []byte) error { return nil })
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A damaged meta page would make bbolt fall back to the transaction before the
// last, silently.
func TestBoltCheckRefusesALostTransaction(t *testing.T) {
	for page := range 2 {
		path := filepath.Join(tempDir(t), "db")
		grow(t, path, true, 1)
		flip(t, path, page*os.Getpagesize()+boltHeader+48) // its transaction ID
		if err := checkBolt(path); err == nil {
			t.Errorf("meta page %d is damaged, and accepted", page)
		}
	}
}
