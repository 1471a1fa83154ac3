package etcdmap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxOps is etcd's default limit of operations in one transaction.
const maxOps = 128

// etcdStore is the store over the real client.
type etcdStore struct {
	cfg  clientv3.Config
	base string // prefix of all keys, with a slash at its end

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	turn   chan struct{} // holds one token: whoever has it may look at client
	client *clientv3.Client

	watches sync.WaitGroup
}

func newEtcdStore(cfg Config, base string) *etcdStore {
	ctx, cancel := context.WithCancel(context.Background())
	s := &etcdStore{
		base:   base,
		ctx:    ctx,
		cancel: cancel,
		turn:   make(chan struct{}, 1),
		cfg: clientv3.Config{
			Context:     ctx,
			Endpoints:   cfg.Endpoints,
			TLS:         cfg.TLS,
			Username:    cfg.Username,
			Password:    cfg.Password,
			DialTimeout: cfg.DialTimeout,
			// A cut-off etcd leaves connections half open. gRPC does not ping more often than this.
			DialKeepAliveTime:    10 * time.Second,
			DialKeepAliveTimeout: 3 * time.Second,
			// This package retries, and says in its own words what an operator should know.
			Logger: zap.NewNop(),
			DialOptions: []grpc.DialOption{
				grpc.WithChainUnaryInterceptor(noteReason),
				// gRPC's own backoff grows to two minutes: far too long after an outage.
				grpc.WithConnectParams(grpc.ConnectParams{
					Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
					MinConnectTimeout: 3 * time.Second,
				}),
			},
		},
	}
	s.turn <- struct{}{}
	return s
}

// connect returns the client. It is made on first use because with a user name the library asks etcd for a token
// before it returns one, and etcd may be late.
func (s *etcdStore) connect(ctx context.Context) (*clientv3.Client, error) {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { s.turn <- struct{}{} }()
	if s.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if s.client == nil {
		c, err := clientv3.New(s.cfg)
		if err != nil {
			return nil, explain(ctx, "connect", nil, err)
		}
		s.client = c
	}
	return s.client, nil
}

func (s *etcdStore) close() error {
	s.cancel()
	<-s.turn
	var err error
	if s.client != nil {
		if err = s.client.Close(); errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	s.turn <- struct{}{}
	s.watches.Wait()
	return err
}

// reason is why gRPC could not complete a request. The etcd client replaces it by the context's error.
type reason struct {
	mu   sync.Mutex
	text string
}

type reasonKey struct{}

func noteReason(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoker(ctx, method, req, reply, cc, opts...)
	if r, ok := ctx.Value(reasonKey{}).(*reason); ok && err != nil {
		r.mu.Lock()
		r.text = status.Convert(err).Message()
		r.mu.Unlock()
	}
	return err
}

// do runs one request against the client and explains its error.
func (s *etcdStore) do(ctx context.Context, op string, f func(context.Context, *clientv3.Client) error) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	r := &reason{}
	err = explain(ctx, op, r, f(context.WithValue(ctx, reasonKey{}, r), c))
	if err != nil && s.showsNone() && hungUp(r) {
		return fmt.Errorf("%w (no certificate of our own is shown: an etcd that asks for one hangs up like this)", err)
	}
	return err
}

// showsNone reports whether this end speaks TLS and shows no certificate.
func (s *etcdStore) showsNone() bool {
	t := s.cfg.TLS
	return t != nil && len(t.Certificates) == 0 && t.GetClientCertificate == nil
}

// hungUp reports whether the connection ended after the handshake: with TLS 1.3 a client learns only then that its
// certificate is wanted, and which end notices first decides what it is told.
func hungUp(r *reason) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sign := range []string{"broken pipe", "connection reset", "EOF", "certificate required"} {
		if strings.Contains(r.text, sign) {
			return true
		}
	}
	return false
}

// explain names the operation and, of the chain that gRPC wraps around a failed connection, the end that says why.
func explain(ctx context.Context, op string, r *reason, err error) error {
	if err == nil {
		return nil
	}
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		switch known.Code() {
		case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument:
			return &refusedError{fmt.Errorf("%s: %w", op, err)}
		}
		return fmt.Errorf("%s: %w", op, err)
	}
	text := ""
	if r != nil {
		r.mu.Lock()
		text = r.text
		r.mu.Unlock()
	}
	if _, after, ok := strings.Cut(text, `desc = "`); ok {
		text = strings.TrimSuffix(strings.TrimPrefix(after, "transport: "), `"`)
	}
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		if text == "" || strings.Contains(text, "context deadline exceeded") {
			return fmt.Errorf("%s: no answer in time: %w", op, err)
		}
		return fmt.Errorf("%s: %s: %w", op, text, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

func (s *etcdStore) list(ctx context.Context) (snapshot, error) {
	var snap snapshot
	err := s.do(ctx, "list keys", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, s.base, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		snap = snapshot{clusterID: resp.Header.ClusterId, revision: resp.Header.Revision, entries: make([]entry, 0, len(resp.Kvs))}
		for _, kv := range resp.Kvs {
			snap.entries = append(snap.entries, entry{key: string(kv.Key), value: kv.Value, rev: kv.ModRevision, lease: kv.Lease})
		}
		return nil
	})
	return snap, err
}

func (s *etcdStore) probe(ctx context.Context, key string) (probe, error) {
	var p probe
	err := s.do(ctx, "probe", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).Then(clientv3.OpGet(key), clientv3.OpGet(s.base, clientv3.WithPrefix(), clientv3.WithCountOnly())).Commit()
		if err != nil {
			return err
		}
		p = probe{clusterID: resp.Header.ClusterId, revision: resp.Header.Revision}
		for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
			p.newest = entry{key: string(kv.Key), value: kv.Value, rev: kv.ModRevision, lease: kv.Lease}
		}
		p.count = resp.Responses[1].GetResponseRange().Count
		return nil
	})
	return p, err
}

func (s *etcdStore) commit(ctx context.Context, writes []write) (commitResult, error) {
	var res commitResult
	err := s.do(ctx, "write keys", func(ctx context.Context, c *clientv3.Client) error {
		var ifs []clientv3.Cmp
		var puts, gets []clientv3.Op
		for _, w := range writes {
			ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(w.key), "=", w.ifRev))
			puts = append(puts, clientv3.OpPut(w.key, string(w.value), clientv3.WithLease(clientv3.LeaseID(w.lease))))
			gets = append(gets, clientv3.OpGet(w.key))
		}
		resp, err := c.Txn(ctx).If(ifs...).Then(puts...).Else(gets...).Commit()
		if err != nil {
			return leaseError(err)
		}
		res = commitResult{done: resp.Succeeded, revision: resp.Header.Revision}
		if resp.Succeeded {
			return nil
		}
		for _, r := range resp.Responses {
			for _, kv := range r.GetResponseRange().Kvs {
				res.found = append(res.found, entry{key: string(kv.Key), value: kv.Value, rev: kv.ModRevision, lease: kv.Lease})
			}
		}
		return nil
	})
	return res, err
}

func leaseError(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return errLeaseGone
	}
	return err
}

func (s *etcdStore) grant(ctx context.Context, ttl time.Duration) (int64, error) {
	var id int64
	err := s.do(ctx, "grant lease", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
		if err != nil {
			return err
		}
		id = int64(resp.ID)
		return nil
	})
	return id, err
}

func (s *etcdStore) keepAlive(ctx context.Context, lease int64) error {
	return s.do(ctx, "keep lease", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.KeepAliveOnce(ctx, clientv3.LeaseID(lease))
		return leaseError(err)
	})
}

func (s *etcdStore) leaseTTL(ctx context.Context, lease int64) (granted, left time.Duration, err error) {
	err = s.do(ctx, "look at lease", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.TimeToLive(ctx, clientv3.LeaseID(lease))
		if err != nil {
			return leaseError(err)
		}
		if resp.TTL <= 0 {
			return errLeaseGone
		}
		granted, left = time.Duration(resp.GrantedTTL)*time.Second, time.Duration(resp.TTL)*time.Second
		return nil
	})
	return granted, left, err
}

func (s *etcdStore) revoke(ctx context.Context, lease int64) error {
	err := s.do(ctx, "revoke lease", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Revoke(ctx, clientv3.LeaseID(lease))
		return leaseError(err)
	})
	if errors.Is(err, errLeaseGone) {
		return nil
	}
	return err
}

func (s *etcdStore) watch(ctx context.Context, from int64) watch {
	// Without require-leader a member that lost its cluster keeps a watch open and silent.
	onStream := clientv3.WithRequireLeader
	updates := make(chan watchUpdate)
	send := func(u watchUpdate) {
		select {
		case updates <- u:
		case <-ctx.Done():
		}
	}
	// Each watch has a watcher of its own, to be closed with it: the client leaves a stream open for good whose watch was
	// given up before etcd answered it, and one that a request for progress opened after its watch's end.
	var watcher atomic.Pointer[clientv3.Watcher]
	s.watches.Go(func() {
		c, err := s.connect(ctx)
		if err != nil {
			send(watchUpdate{err: err})
			return
		}
		own := clientv3.NewWatcher(c)
		defer func() { _ = own.Close() }() // says how the stream ended, which the updates have said
		watcher.Store(&own)
		// Watch itself blocks while etcd is away, hence the goroutine around both.
		for resp := range own.Watch(onStream(ctx), s.base, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithCreatedNotify()) {
			u := watchUpdate{created: resp.Created, clusterID: resp.Header.ClusterId, err: resp.Err()}
			if errors.Is(u.err, rpctypes.ErrCompacted) {
				u.err = errCompacted
			}
			for _, ev := range resp.Events {
				u.events = append(u.events, event{
					entry:   entry{key: string(ev.Kv.Key), value: ev.Kv.Value, rev: ev.Kv.ModRevision, lease: ev.Kv.Lease},
					deleted: ev.Type == clientv3.EventTypeDelete,
				})
			}
			send(u)
			if u.err != nil {
				return
			}
		}
		send(watchUpdate{err: errors.New("the watch ended")})
	})
	return watch{
		updates: updates,
		ask: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second) // it blocks while the stream is being opened again
			defer cancel()
			own := watcher.Load()
			if own == nil {
				return errors.New("the watch has not begun")
			}
			return (*own).RequestProgress(onStream(ctx))
		},
	}
}
