package network

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Ask does a handshake with the member that a [MemberAddress] names, and closes the
// connection. It returns the API address that the member gives, which may be empty. The
// error says why no member with this ID and of this node's cluster answers at the address.
// Ask takes at most timeout.
func (s *Stream) Ask(target raft.ServerAddress, timeout time.Duration) (api string, err error) {
	member, addr := SplitMember(target)
	if err := s.dialable(member, addr); err != nil {
		return "", fmt.Errorf("ask for raft peer %s: %w", target, err)
	}
	ctx, cancel := context.WithTimeout(s.dialling, timeout)
	defer cancel()
	c, err := s.connect(ctx, addr, member)
	if err != nil {
		return "", fmt.Errorf("ask for raft peer %s: %w", target, err)
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	ours, own := s.preface(member)
	defer s.dials(ours.nonce, member)()
	theirs, err := clientPreface(c, ours, own)
	if err != nil {
		return "", fmt.Errorf("ask for raft peer %s: %w", target, err)
	}
	return theirs.api, nil
}
