package gossipkeys

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
)

func TestBothEndsOfAnExchangeGetTheOtherOnesOffer(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	asked, answered := Offer{"c1", ring(3, 1, 2)}, Offer{"c1", ring(7, 4)}
	done := make(chan error, 1)
	go func() {
		defer theirs.Close()
		done <- Answer(theirs, func(o Offer) (Offer, error) {
			if o.Cluster != asked.Cluster || !o.Ring.Equal(asked.Ring) {
				t.Errorf("the other end got %+v, want %+v", o, asked)
			}
			return answered, nil
		})
	}()
	got, err := Ask(ours, asked)
	if err != nil || got.Cluster != answered.Cluster || !got.Ring.Equal(answered.Ring) {
		t.Errorf("got %+v, %v, want %+v", got, err, answered)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWhoIsRefusedGetsNoKeys(t *testing.T) {
	var in, out bytes.Buffer
	if err := send(&in, Offer{Ring: ring(1, 1)}); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	err := Answer(struct {
		io.Reader
		io.Writer
	}{&in, &out}, func(Offer) (Offer, error) { return Offer{Ring: ring(9, 9)}, refused })
	if !errors.Is(err, refused) || out.Len() != 0 {
		t.Errorf("answered %d bytes, %v, want none", out.Len(), err)
	}
}

// TestWhatIsReadIsBounded: the length is checked before there is room for it.
func TestWhatIsReadIsBounded(t *testing.T) {
	if _, err := receive(io.MultiReader(bytes.NewReader([]byte{0xff, 0xff}), endless{})); err == nil {
		t.Error("an offer of 64 KiB is read")
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// FuzzExchange: whatever another node sends, what comes of it is a ring that may be used, and is read
// again as it is.
func FuzzExchange(f *testing.F) {
	for _, o := range []Offer{{"", ring(0, 1)}, {"c1", ring(9, 1, 2, 3)}, {"c", Ring{Keys: [][]byte{key(1)[:16]}}}} {
		var b bytes.Buffer
		if err := send(&b, o); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{})
	f.Add([]byte{0, 0})
	f.Add([]byte{0, 4, 0x22, 2, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := receive(bytes.NewReader(b))
		if err != nil {
			return
		}
		if err := o.Ring.Check(); err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		s := &Store{ring: MadeUp()}
		before := s.Ring()
		after, changed, err := s.Merge(o.Ring)
		if err != nil || changed != o.Ring.NewerThan(before) || !after.Equal(before) && !after.Equal(o.Ring) {
			t.Fatalf("merged %+v with %+v: %+v, %v, %v", before, o.Ring, after, changed, err)
		}
		var again bytes.Buffer
		if err := send(&again, o); err != nil {
			return // the ID of its cluster is too long to be sent
		}
		if o2, err := receive(&again); err != nil || !o2.Ring.Equal(o.Ring) || o2.Cluster != o.Cluster {
			t.Fatalf("%+v is read again as %+v, %v", o, o2, err)
		}
	})
}

// FuzzFile: a file is refused, or holds a ring that may be used and is written and read again as it is.
func FuzzFile(f *testing.F) {
	f.Add(encode(ring(1, 1), ""))
	f.Add(encode(ring(7, 2, 1), FingerprintOf(key(1))))
	f.Add([]byte(`{"format":1,"version":1,"given":true,"keys":[],"sum":0}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decode(b)
		if err != nil {
			return
		}
		r := c.ring()
		if err := r.Check(); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		again, err := decode(encode(r, c.Taken))
		if err != nil || !again.ring().Equal(r) || again.Taken != c.Taken || !slices.EqualFunc(again.Keys, c.Keys, bytes.Equal) {
			t.Fatalf("%+v is read again as %+v, %v", c, again, err)
		}
	})
}
