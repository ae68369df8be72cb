/** What goes in and out of the login negotiation (login.ts): the fields of the PDUs, and what a login comes to. */
import type { SessionParameters } from '../../iscsi/parameters.ts'
import type { Proof } from './auth.ts'
import type { SessionType } from './login-identity.ts'
import type { TargetNode } from './target-node.ts'

/** Stages of CSG and NSG (RFC 7143, 11.12.3). */
export const STAGE = { SECURITY: 0, OPERATIONAL: 1, FULL_FEATURE: 3 } as const

/** The fields of a Login request (RFC 7143, 11.12) that matter here. `text` is copied where it is kept. */
export interface LoginRequest {
  readonly transit: boolean
  readonly continued: boolean
  readonly csg: number
  readonly nsg: number
  readonly versionMin: number
  readonly versionMax: number
  readonly isid: Buffer
  readonly tsih: number
  readonly cid: number
  readonly text: Buffer
}

/** The fields of the Login response. `nsg` counts only with `transit`. */
export interface LoginReply {
  readonly statusClass: number
  readonly statusDetail: number
  readonly transit: boolean
  readonly continued: boolean
  readonly csg: number
  readonly nsg: number
  readonly text: Buffer
  /** Set on the last reply of a login that succeeded. */
  readonly outcome?: LoginOutcome
}

export interface LoginOutcome {
  readonly sessionType: SessionType
  /** Normalized. */
  readonly initiatorName: string
  readonly initiatorAlias?: string
  readonly isid: Buffer
  /** TSIH of the request: 0, since sessions have one connection. */
  readonly requestedTsih: number
  /** Undefined in a discovery session. */
  readonly target: TargetNode | undefined
  readonly parameters: SessionParameters
  /** Undefined where no authentication was asked for. */
  readonly proof: Proof | undefined
}
