package limits

// Descriptors that clients may never take: links, etcd, the admin server and its scrapes, files that are read again.
const (
	reservedFiles     = 256
	reservedFilesPart = 8 // of few descriptors not more than this part
)

// Room divides descriptors: how many clients and how many silent connections there may be beside what is reserved and
// the handshakes in the queue. wanted and silent of 0 ask for what is sensible. byFiles says that the descriptors
// decided.
func Room(files uint64, wanted, silent, queue int) (clients, most int, byFiles bool) {
	const plenty = 1 << 20
	n := int(min(files, plenty))
	if most = silent; most <= 0 {
		most = min(defaultSilent, n/4)
	}
	reserve := min(reservedFiles, n/reservedFilesPart)
	clients = max(1, n-reserve-most-Queue(files, queue))
	if wanted > 0 && wanted <= clients {
		return wanted, most, false
	}
	return clients, most, true
}

// Queue is how many descriptors are set aside for requests that are being answered, most of which wait in the queue.
func Queue(files uint64, queue int) int { return min(queue, int(min(files, 1<<20))/8) }

// defaultSilent is how many connections may be without a request, where descriptors allow it. At 10 KB each that is
// 40 MB at most.
const defaultSilent = 4096
