/* A rank's sign of life for `elbo launch --hang-timeout`: call it once a step. A microsecond; nothing where nobody
 * listens. */
#ifndef JOB_HEARTBEAT_H
#define JOB_HEARTBEAT_H

void launcher_heartbeat(void);

#endif
