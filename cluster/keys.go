package cluster

import "fmt"

// setKeys makes the ring hold exactly keys. At every moment in between, the
// ring decrypts what the old and the new keys both decrypt.
func (c *Cluster) setKeys(keys [][]byte) error {
	for _, k := range keys {
		if err := c.keyring.AddKey(k); err != nil {
			return fmt.Errorf("set gossip keys: %w", err)
		}
	}
	if err := c.keyring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	wanted := make(map[string]bool)
	for _, k := range keys {
		wanted[string(k)] = true
	}
	// A copy: RemoveKey moves the elements of the slice that GetKeys returns.
	for _, k := range append([][]byte(nil), c.keyring.GetKeys()...) {
		if !wanted[string(k)] {
			if err := c.keyring.RemoveKey(k); err != nil {
				return fmt.Errorf("set gossip keys: %w", err)
			}
		}
	}
	return nil
}
