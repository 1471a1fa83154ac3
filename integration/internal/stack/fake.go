package stack

import "github.com/twmb/franz-go/pkg/kfake"

// Fake is the Kafka inside this process, for what no real one can be made to answer; nil when the stack has another, or
// while it is stopped.
func Fake(s Stack) *kfake.Cluster {
	c, ok := s.(*cluster)
	if !ok {
		return nil
	}
	e, ok := c.back.(*embedded)
	if !ok {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fake
}
