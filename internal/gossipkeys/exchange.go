package gossipkeys

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/locknode/locknode/internal/peerapi"
)

// maxOffer bounds what one end of an exchange sends: the keys, the ID of a cluster, and the length.
const maxOffer = 2 << 10

// Offer is what a node shows another one: the ring that it uses, and the ID of its cluster, empty if
// it knows of none.
type Offer struct {
	Cluster string
	Ring    Ring
}

// Ask shows the other end of a connection this node's offer, and returns its answer. The connection
// has to have a deadline, as in [Answer].
func Ask(conn io.ReadWriter, own Offer) (Offer, error) {
	if err := send(conn, own); err != nil {
		return Offer{}, err
	}
	return receive(conn)
}

// Answer is the other end of [Ask]. take gets the offer of the other end, and returns what this node
// offers then. If it returns an error, nothing is answered.
func Answer(conn io.ReadWriter, take func(Offer) (Offer, error)) error {
	other, err := receive(conn)
	if err != nil {
		return err
	}
	own, err := take(other)
	if err != nil {
		return err
	}
	return send(conn, own)
}

func send(w io.Writer, o Offer) error {
	body, err := proto.Marshal(&peerapi.GossipRing{ClusterId: o.Cluster, Version: o.Ring.Version, Given: o.Ring.Given, Keys: o.Ring.Keys})
	if err != nil {
		return err
	}
	if len(body) > maxOffer {
		return fmt.Errorf("gossip keys: are %d bytes, must be at most %d", len(body), maxOffer)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...))
	return err
}

func receive(r io.Reader) (Offer, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Offer{}, err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n > maxOffer {
		return Offer{}, fmt.Errorf("gossip keys of the other node: are %d bytes, must be at most %d", n, maxOffer)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return Offer{}, err
	}
	var m peerapi.GossipRing
	if err := proto.Unmarshal(body, &m); err != nil {
		return Offer{}, fmt.Errorf("gossip keys of the other node: %w", err)
	}
	o := Offer{Cluster: m.GetClusterId(), Ring: Ring{Version: m.GetVersion(), Given: m.GetGiven(), Keys: m.GetKeys()}}
	if err := o.Ring.Check(); err != nil {
		return Offer{}, fmt.Errorf("of the other node: %w", err)
	}
	return o, nil
}
