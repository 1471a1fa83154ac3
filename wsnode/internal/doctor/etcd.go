package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
	"github.com/pointsmanhq/pointsman/pkg/overview"
	"github.com/pointsmanhq/pointsman/proto/directory"
)

const (
	// slowWrite is an etcd whose writes are so slow that leases get into danger.
	slowWrite = 500 * time.Millisecond
	// skewed and farSkewed are differences between clocks that matter.
	skewed    = 2 * time.Second
	farSkewed = 10 * time.Second
)

func (d *doctor) etcd(ctx context.Context) {
	const check = "etcd"
	var dead []string
	var last error
	for _, endpoint := range d.cfg.Etcd.Endpoints {
		pic, err := d.endpoint(ctx, endpoint)
		switch {
		case err != nil:
			dead = append(dead, endpoint+" ("+plain(err)+")")
			last = err
		case d.picture == nil:
			d.picture = pic
		}
	}
	if d.picture == nil {
		d.wrong(check, "etcd does not answer at "+strings.Join(dead, ", "), remedyForEtcd(last))
		return
	}
	if len(dead) > 0 {
		d.warn(check, fmt.Sprintf("%d of %d endpoints do not answer: %s", len(dead), len(d.cfg.Etcd.Endpoints), strings.Join(dead, ", ")),
			"bring those members back before another one fails, or take them out of --etcd")
	}
	if d.writes(ctx) {
		d.ok(check, "%s; a write takes %s", plural(len(d.cfg.Etcd.Endpoints)-len(dead), "endpoint answers", "endpoints answer"), d.etcdTook.Round(10*time.Microsecond))
	}
	d.described()
}

func remedyForEtcd(err error) string {
	switch {
	case strings.Contains(err.Error(), "authentication") || strings.Contains(err.Error(), "permission") || strings.Contains(err.Error(), "user name"):
		return "give --etcd-user and --etcd-password-file of a user that may read and write below --etcd-prefix"
	case strings.Contains(err.Error(), "tls") || strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "handshake"):
		return "compare --etcd-tls and the certificate files with etcd's own settings"
	}
	return "start etcd, or say where it is with --etcd; nodes and routers that run go on without it, but new ones wait"
}

func (d *doctor) endpoint(ctx context.Context, endpoint string) (pic *etcdmap.Picture, err error) {
	// The client would try again until time is up, and then say less.
	err = d.ask(ctx, func(ctx context.Context) error {
		_, addr, ok := strings.Cut(endpoint, "://")
		if !ok {
			addr = endpoint
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimSuffix(addr, "/"))
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	cfg := d.cfg.Etcd
	cfg.Endpoints, cfg.DialTimeout = []string{endpoint}, d.cfg.Patience
	m, err := etcdmap.Open(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return m.Look(ctx)
}

// writes finds out whether etcd takes writes, and how long that takes.
func (d *doctor) writes(ctx context.Context) bool {
	const check = "etcd"
	cfg := d.cfg.Etcd
	cfg.DialTimeout = d.cfg.Patience
	m, err := etcdmap.Open(cfg)
	if err != nil {
		d.wrong(check, err.Error(), "correct --etcd")
		return false
	}
	defer func() { _ = m.Close() }()
	if _, err = m.Look(ctx); err == nil { // so that the connection's start is not counted
		began := time.Now()
		err = m.TryWriting(ctx)
		d.etcdTook = max(time.Since(began)/2, 1) // a lease is granted and taken back
	}
	switch {
	case err != nil && strings.Contains(err.Error(), "space"):
		d.wrong(check, "etcd takes no writes: "+plain(err), "compact and defragment it (etcdctl compact, defrag), then etcdctl alarm disarm")
		return false
	case err != nil:
		d.wrong(check, "etcd answers, but takes no writes: "+plain(err), "let --etcd-user write below --etcd-prefix, and look at etcd's log")
		return false
	case d.etcdTook > slowWrite:
		d.warn(check, fmt.Sprintf("a write takes %s", d.etcdTook.Round(time.Millisecond)), "give etcd a faster disk or a nearer place: nodes keep their leases by such writes")
		return false
	}
	return true
}

// described compares what etcd says of the topic with the settings.
func (d *doctor) described() {
	const check = "map"
	t := d.picture.Topic
	if t == nil {
		if len(d.picture.Nodes) > 0 {
			d.wrong(check, "etcd lists nodes but does not describe the topic", "look at the nodes' logs; the value of "+d.cfg.Etcd.Prefix+"/"+d.cfg.Etcd.Topic+"/topic may be malformed")
			return
		}
		d.ok(check, "etcd knows nothing of the topic yet: the first node describes it")
		return
	}
	switch {
	case t.Partitioner != d.cfg.Partitioner:
		d.wrong(check, fmt.Sprintf("etcd says that the topic's partitioner is %s, this node's is %s", t.Partitioner, d.cfg.Partitioner),
			"start all nodes with the --partitioner that the producers use; to change it, stop all nodes and delete the topic's key in etcd")
	case t.Group != d.cfg.Group:
		d.wrong(check, fmt.Sprintf("etcd says that the consumer group is %s, this node's is %s", t.Group, d.cfg.Group),
			"start all nodes with the same --group; a second stack on this etcd needs an --etcd-prefix of its own")
	default:
		d.ok(check, "%s, %s of %d partitions, as etcd says", plural(len(d.picture.Nodes), "node lives", "nodes live"), plural(len(d.picture.Claims), "claim", "claims"), t.Partitions)
	}
}

// clocks compares this machine's time with that of etcd and of the other nodes.
func (d *doctor) clocks(ctx context.Context) {
	const check = "clocks"
	type clock struct {
		whose string
		ahead time.Duration
	}
	var all []clock
	if d.picture != nil {
		for _, endpoint := range d.cfg.Etcd.Endpoints {
			_ = d.ask(ctx, func(ctx context.Context) error {
				ahead, err := etcdmap.Clock(ctx, d.cfg.Etcd, endpoint)
				if err == nil {
					all = append(all, clock{"etcd's at " + endpoint, ahead})
				}
				return err
			})
		}
		const most = 20 // nodes: whose clock is wrong shows soon
		asked := 0
		for id, n := range d.picture.Nodes {
			if asked++; n.Admin == "" || asked > most {
				continue
			}
			if ahead, ok := d.nodeClock(ctx, n); ok {
				all = append(all, clock{"node " + id + "'s", ahead})
			}
		}
	}
	if d.future > 0 {
		all = append(all, clock{"that of the newest record's producer (or broker)", d.future})
	}
	if len(all) == 0 {
		d.skip(check, "nobody told the time to compare with")
		return
	}
	worst := all[0]
	for _, c := range all[1:] {
		if c.ahead.Abs() > worst.ahead.Abs() {
			worst = c
		}
	}
	direction := "ahead of"
	if worst.ahead < 0 {
		direction = "behind"
	}
	text := fmt.Sprintf("%s clock is %s %s this machine's", worst.whose, worst.ahead.Abs().Round(100*time.Millisecond), direction)
	const remedy = "run chrony or ntpd on all machines: delivery latency is measured with these clocks, and starts by time depend on them"
	switch {
	case worst.ahead.Abs() >= farSkewed:
		d.wrong(check, text, remedy)
	case worst.ahead.Abs() >= skewed:
		d.warn(check, text, remedy)
	default:
		d.ok(check, "%s agree within %s", plural(len(all)+1, "clock", "clocks"), skewed)
	}
}

// nodeClock asks a node's admin server. One that is for its own machine only is no witness of another one.
func (d *doctor) nodeClock(ctx context.Context, n directory.Node) (ahead time.Duration, ok bool) {
	err := d.ask(ctx, func(ctx context.Context) error {
		sent := time.Now()
		s, err := overview.Get(ctx, n.Admin)
		if err != nil {
			return err
		}
		if s.Instance != n.Instance {
			return errors.New("another instance")
		}
		ahead = s.At.Sub(sent.Add(time.Since(sent) / 2))
		return nil
	})
	return ahead, err == nil
}

// plain is the end of a chain of errors that says what happened.
func plain(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &dns):
		return "no such host " + dns.Name
	case errors.As(err, &op) && op.Timeout():
		return "no answer"
	case errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "connection refused"):
		return "connection refused"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer"
	}
	return err.Error()
}
