"""What a server of videos is made of below its HTTP interface: jobs, their queue and files, keys, limits, uploads.

Everything lies in one *data folder* on a local disk: `serving.sqlite3` (the queue, the keys, who owns what) and the
files of jobs and uploads. Any number of processes of one machine may work in it at once. The server uses `JobStore`,
`Keys` and `Uploads`; a worker process uses `WorkQueue`; `upkeep` is called at the start and every minute. Nothing here
imports a neural network or a web framework, and whatever a client can get wrong is a `RequestError`.
"""
