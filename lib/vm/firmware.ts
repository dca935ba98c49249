import { existsSync } from 'node:fs'
import { Failure, usage } from '../failure.ts'

export interface Firmware {
  code: string
  vars: string
}

/**
 * Pairs of OVMF code and variables; the first that exists is used. The 2 MiB build starts 6 s sooner
 * under TCG than the 4 MiB one, but some distributions have only the latter.
 */
const pairs: [code: string, vars: string][] = [
  ['/usr/share/OVMF/OVMF_CODE.fd', '/usr/share/OVMF/OVMF_VARS.fd'],
  ['/usr/share/OVMF/OVMF_CODE_4M.fd', '/usr/share/OVMF/OVMF_VARS_4M.fd'],
  ['/usr/share/edk2/x64/OVMF_CODE.4m.fd', '/usr/share/edk2/x64/OVMF_VARS.4m.fd'],
  ['/usr/share/edk2/ovmf/OVMF_CODE.fd', '/usr/share/edk2/ovmf/OVMF_VARS.fd'],
  ['/run/libvirt/nix-ovmf/edk2-x86_64-code.fd', '/run/libvirt/nix-ovmf/edk2-i386-vars.fd'],
]

/**
 * The UEFI firmware for the VMs; `LAB_OVMF_CODE` and `LAB_OVMF_VARS` name another.
 * @throws Failure when there is none
 */
export function findFirmware(): Firmware {
  const { LAB_OVMF_CODE: code, LAB_OVMF_VARS: vars } = process.env
  // one alone would be ignored, or combined with a file that does not fit
  if (code ? !vars : vars)
    throw usage(
      `Cannot use ${code ? 'LAB_OVMF_CODE' : 'LAB_OVMF_VARS'} alone`,
      'Set both LAB_OVMF_CODE and LAB_OVMF_VARS, or neither',
    )
  for (const path of [code, vars]) {
    if (path && !existsSync(path)) throw new Failure(`Cannot find the firmware \`${path}\``)
  }
  if (code && vars) return { code, vars }
  const found = pairs.find((pair) => pair.every((path) => existsSync(path)))
  if (found) return { code: found[0], vars: found[1] }
  throw new Failure('Cannot find OVMF, the UEFI firmware for the VMs', {
    hint: 'Install the package `ovmf`, or set LAB_OVMF_CODE and LAB_OVMF_VARS',
  })
}
