// Package everyone is the design in which every server reads the whole topic and any client may come to any server:
// no router, no map, nothing between the tiers because there is one. Its price is that ingest does not shrink with
// the number of servers.
package everyone

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/pointsmanhq/pointsman/integration/designs/internal/feed"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/program"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/socket"
	"github.com/pointsmanhq/pointsman/integration/designs/internal/topic"
)

// primed is how many records of each partition a server reads before its end when it starts, so that clients that
// come from a server that died are served from memory.
const primed = 4096

// Server is one server.
type Server struct {
	base    program.Base
	topic   *topic.Topic
	sockets *socket.Server
	lis     net.Listener
	logs    []*feed.Log
	fans    []*feed.Local
}

// New opens the topic and the clients' address.
func New(base program.Base, listen string) (_ *Server, err error) {
	s := &Server{base: base}
	if s.topic, err = topic.Open(base.Kafka); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.topic.Close())
		}
	}()
	if err = base.Ingest(s.topic); err != nil {
		return nil, err
	}
	s.sockets, err = socket.New(socket.Config{TopicID: s.topic.ID, Partitions: s.topic.Partitions, Logger: base.Logger}, s, base.Registry)
	if err != nil {
		return nil, err
	}
	caught, err := base.Counter("caught_up_records_total", "Records read again for clients whose cursor lies below the ring.")
	if err != nil {
		return nil, err
	}
	for p := range s.topic.Partitions {
		fan := &feed.Local{Frame: s.sockets.Frame, Delivered: s.sockets.Delivered}
		s.fans = append(s.fans, fan)
		s.logs = append(s.logs, feed.New(feed.Config{Partition: p, Source: s.topic, Fan: fan, Logger: base.Logger, Caught: func(n int) { caught.Add(float64(n)) }}))
	}
	base.Ready("partitions", s.reading)
	if s.lis, err = program.Listen(listen); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr is where clients connect.
func (s *Server) Addr() string { return s.lis.Addr().String() }

// reading is nil when every partition is being read.
func (s *Server) reading() error {
	for _, l := range s.logs {
		if err := l.Ready(); err != nil {
			return err
		}
	}
	return nil
}

// Run serves until ctx ends, then sends the clients away and reads on for those that wait for their turn.
func (s *Server) Run(ctx context.Context) error {
	reading, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	serving, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var logs sync.WaitGroup
	for p, l := range s.logs {
		logs.Go(func() {
			from, end, err := s.topic.Recent(reading, int32(p), primed) //nolint:gosec // below the partition count
			if err == nil {
				err = l.Run(reading, from, end)
			}
			if err != nil && reading.Err() == nil {
				stop(err) // a server that reads a part only must not pretend
				giveUp()
			}
		})
	}
	err := s.sockets.Run(serving, s.lis, nil)
	failed := context.Cause(reading)
	stop(nil)
	logs.Wait()
	return errors.Join(err, failed, s.topic.Close())
}

// Admit implements socket.Host.
func (s *Server) Admit(p int32) error { return s.logs[p].Ready() }

// Attach implements socket.Host.
func (s *Server) Attach(c *socket.Client) {
	if err := s.logs[c.Partition()].Attach(c); err != nil {
		c.Move(err.Error())
	}
}

// Detach implements socket.Host.
func (s *Server) Detach(c *socket.Client) {
	p := c.Partition()
	_ = s.logs[p].Do(func() { s.fans[p].Remove(c) }) // a log that has ended delivers to nobody
}

// Covered implements socket.Host.
func (s *Server) Covered(c *socket.Client) int64 {
	if !c.IsLive() {
		return -1
	}
	return s.logs[c.Partition()].Head()
}
